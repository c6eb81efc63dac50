//go:build ignore

// hostnvml is a libnvidia-ml.so.1 for machines without a GPU: it tells of the GPUs that a file describes, and reads the file
// again at every call, so that a test can have a GPU break, get hot, or be held by somebody while programs run.
//
// Environment: HOSTNVML is the path of the file; without it there is no driver (NVML_ERROR_DRIVER_NOT_LOADED). Its lines:
//
//	driver 570.86.15 12080                            version, newest CUDA
//	gpu uuid=GPU-… name=NVIDIA_H200 bus=27 key=value …  in NVML's order; keys and defaults are in struct Gpu
//	proc GPU-… PID MiB                                a process on it
//	event GPU-… TYPE DATA                             in NVML's bits; those below come later: a set reports each once

#include <chrono>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <mutex>
#include <set>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

namespace {

enum Return { SUCCESS = 0, UNINITIALIZED = 1, INVALID = 2, UNSUPPORTED = 3, NOT_FOUND = 6, SMALL = 7, NO_DRIVER = 9, TIMEOUT = 10, LOST = 15 };

using u32 = unsigned int;
using u64 = unsigned long long;

struct Gpu {
	std::string uuid, name = "NVIDIA_H200";
	u32 bus = 0, capability = 90, mode = 0, mig = 0, ecc = 1, pending = 0, failed = 0, lost = 0;
	u32 power = 90000, powerlimit = 700000, util = 0, clock = 345, maxclock = 1980, temp = 31; // mW, %, MHz, °C
	u32 nvlinks = 18, peer = 1, ancestor = 40;
	u64 throttle = 1, total = 143771, reserved = 606, used = 0; // MiB
};

struct Process { std::string uuid; u32 pid; u64 mib; };
struct Happening { std::string uuid; u64 type, data; };

struct World {
	std::string driver = "570.86.15";
	int cuda = 12080;
	std::vector<Gpu> gpus;
	std::vector<Process> processes;
	std::vector<Happening> events;
};

u64 *wide(Gpu &g, const std::string &key) {
	if (key == "throttle") return &g.throttle;
	if (key == "total") return &g.total;
	if (key == "reserved") return &g.reserved;
	if (key == "used") return &g.used;
	return nullptr;
}

u32 *narrow(Gpu &g, const std::string &key) {
	struct { const char *name; u32 *at; } table[] = {{"bus", &g.bus}, {"capability", &g.capability}, {"mode", &g.mode}, {"mig", &g.mig}, {"ecc", &g.ecc},
		{"pending", &g.pending}, {"failed", &g.failed}, {"lost", &g.lost}, {"power", &g.power}, {"powerlimit", &g.powerlimit}, {"util", &g.util},
		{"clock", &g.clock}, {"maxclock", &g.maxclock}, {"temp", &g.temp}, {"nvlinks", &g.nvlinks}, {"peer", &g.peer}, {"ancestor", &g.ancestor}};
	for (auto &t : table)
		if (key == t.name) return t.at;
	return nullptr;
}

Gpu describe(std::istringstream &line) {
	Gpu g;
	for (std::string word; line >> word;) {
		auto eq = word.find('=');
		std::string key = word.substr(0, eq), value = word.substr(eq + 1);
		if (key == "uuid") g.uuid = value;
		else if (key == "name") g.name = value;
		else if (u64 *p = wide(g, key)) *p = std::stoull(value);
		else if (u32 *p = narrow(g, key)) *p = (u32)std::stoul(value);
		else abort(); // a test that says what nobody understands
	}
	return g;
}

bool read(World &w) {
	const char *path = getenv("HOSTNVML");
	std::ifstream file(path ? path : "");
	if (!file) return false;
	for (std::string text; std::getline(file, text);) {
		std::istringstream line(text);
		std::string kind;
		line >> kind;
		if (kind == "driver") line >> w.driver >> w.cuda;
		if (kind == "gpu") w.gpus.push_back(describe(line));
		if (kind == "proc") { Process p; line >> p.uuid >> p.pid >> p.mib; w.processes.push_back(p); }
		if (kind == "event") { Happening h; line >> h.uuid >> h.type >> h.data; w.events.push_back(h); }
	}
	return true;
}

struct Set { size_t seen = 0; std::set<std::string> watched; };

int users = 0;
std::mutex lock;

// with calls f(world, gpu) for a handle, which is the GPU's index plus one.
template <class F> int with(void *device, F f) {
	World w;
	if (!read(w)) return UNINITIALIZED;
	size_t i = (size_t)device;
	if (i < 1 || i > w.gpus.size()) return INVALID;
	Gpu &g = w.gpus[i - 1];
	return g.lost ? (int)LOST : f(w, g);
}

int put(const std::string &s, char *to, u32 n) {
	if (s.size() + 1 > n) return SMALL;
	memcpy(to, s.c_str(), s.size() + 1);
	return SUCCESS;
}

} // namespace

extern "C" {

struct PciInfo { char legacy[16]; u32 domain, bus, device, id, subsystem; char text[32]; };
struct Memory { u64 total, free, used; };
struct Memory2 { u32 version; u64 total, reserved, free, used; };
struct ProcessInfo { u32 pid; u64 memory; u32 gi, ci; };
struct EventData { void *device; u64 type, data; u32 gi, ci; };
struct Utilization { u32 gpu, memory; };

int nvmlInit_v2() {
	World w;
	if (!read(w)) return NO_DRIVER;
	std::lock_guard<std::mutex> hold(lock);
	users++;
	return SUCCESS;
}
int nvmlShutdown() {
	std::lock_guard<std::mutex> hold(lock);
	return users-- > 0 ? SUCCESS : UNINITIALIZED;
}
const char *nvmlErrorString(int r) { return r == LOST ? "GPU is lost" : r == SUCCESS ? "Success" : "hostnvml: an error"; }
int nvmlSystemGetDriverVersion(char *to, u32 n) { World w; return read(w) ? put(w.driver, to, n) : (int)UNINITIALIZED; }
int nvmlSystemGetNVMLVersion(char *to, u32 n) { World w; return read(w) ? put("12." + w.driver, to, n) : (int)UNINITIALIZED; }
int nvmlSystemGetCudaDriverVersion(int *v) { World w; return read(w) ? (*v = w.cuda, SUCCESS) : UNINITIALIZED; }
int nvmlSystemGetProcessName(u32, char *, u32) { return NOT_FOUND; }
int nvmlDeviceGetCount_v2(u32 *n) { World w; return read(w) ? (*n = (u32)w.gpus.size(), SUCCESS) : UNINITIALIZED; }
int nvmlDeviceGetHandleByIndex_v2(u32 i, void **d) {
	World w;
	if (!read(w) || i >= w.gpus.size()) return INVALID;
	*d = (void *)(size_t)(i + 1);
	return w.gpus[i].lost ? LOST : SUCCESS;
}
int nvmlDeviceGetHandleByUUID(const char *uuid, void **d) {
	World w;
	if (!read(w)) return UNINITIALIZED;
	for (size_t i = 0; i < w.gpus.size(); i++)
		if (w.gpus[i].uuid == uuid) { *d = (void *)(i + 1); return w.gpus[i].lost ? LOST : SUCCESS; }
	return NOT_FOUND;
}
int nvmlDeviceGetUUID(void *d, char *to, u32 n) { return with(d, [&](World &, Gpu &g) { return put(g.uuid, to, n); }); }
int nvmlDeviceGetName(void *d, char *to, u32 n) { return with(d, [&](World &, Gpu &g) { return put(g.name, to, n); }); }
int nvmlDeviceGetPciInfo_v3(void *d, PciInfo *p) {
	return with(d, [&](World &, Gpu &g) { memset(p, 0, sizeof *p); p->bus = g.bus; return SUCCESS; });
}
int nvmlDeviceGetCudaComputeCapability(void *d, int *major, int *minor) {
	return with(d, [&](World &, Gpu &g) { *major = g.capability / 10; *minor = g.capability % 10; return SUCCESS; });
}
int nvmlDeviceGetMemoryInfo(void *d, Memory *m) {
	return with(d, [&](World &, Gpu &g) { *m = {g.total << 20, (g.total - g.reserved - g.used) << 20, (g.reserved + g.used) << 20}; return SUCCESS; });
}
int nvmlDeviceGetMemoryInfo_v2(void *d, Memory2 *m) {
	if (m->version != (sizeof *m | 2u << 24)) return INVALID;
	return with(d, [&](World &, Gpu &g) {
		m->total = g.total << 20, m->reserved = g.reserved << 20, m->used = g.used << 20, m->free = (g.total - g.reserved - g.used) << 20;
		return SUCCESS;
	});
}

// get gives one number of a GPU.
#define GET(function, type, field) \
	int function(void *d, type *to) { return with(d, [&](World &, Gpu &g) { *to = (type)g.field; return SUCCESS; }); }
GET(nvmlDeviceGetComputeMode, int, mode)
GET(nvmlDeviceGetPowerUsage, u32, power)
GET(nvmlDeviceGetEnforcedPowerLimit, u32, powerlimit)
GET(nvmlDeviceGetCurrentClocksEventReasons, u64, throttle)
GET(nvmlDeviceGetCurrentClocksThrottleReasons, u64, throttle)
GET(nvmlDeviceGetRetiredPagesPendingStatus, int, pending)

int nvmlDeviceGetMigMode(void *d, u32 *now, u32 *next) { return with(d, [&](World &, Gpu &g) { *now = *next = g.mig; return SUCCESS; }); }
int nvmlDeviceGetMaxMigDeviceCount(void *, u32 *n) { *n = 0; return SUCCESS; }
int nvmlDeviceGetMigDeviceHandleByIndex(void *, u32, void **) { return NOT_FOUND; }
int nvmlDeviceGetEccMode(void *d, int *now, int *next) { return with(d, [&](World &, Gpu &g) { *now = *next = (int)g.ecc; return SUCCESS; }); }
int nvmlDeviceGetRemappedRows(void *d, u32 *corrected, u32 *uncorrected, u32 *pending, u32 *failed) {
	return with(d, [&](World &, Gpu &g) { *corrected = *uncorrected = 0, *pending = g.pending, *failed = g.failed; return SUCCESS; });
}
int nvmlDeviceGetUtilizationRates(void *d, Utilization *u) { return with(d, [&](World &, Gpu &g) { *u = {g.util, 0}; return SUCCESS; }); }
int nvmlDeviceGetClockInfo(void *d, int kind, u32 *mhz) { return with(d, [&](World &, Gpu &g) { *mhz = kind == 1 ? g.clock : 0; return SUCCESS; }); }
int nvmlDeviceGetMaxClockInfo(void *d, int kind, u32 *mhz) { return with(d, [&](World &, Gpu &g) { *mhz = kind == 1 ? g.maxclock : 0; return SUCCESS; }); }
int nvmlDeviceGetTemperature(void *d, int, u32 *c) { return with(d, [&](World &, Gpu &g) { *c = g.temp; return SUCCESS; }); }

int nvmlDeviceGetComputeRunningProcesses_v3(void *d, u32 *n, ProcessInfo *infos) {
	return with(d, [&](World &w, Gpu &g) {
		std::vector<ProcessInfo> found;
		for (auto &p : w.processes)
			if (p.uuid == g.uuid) found.push_back({p.pid, p.mib << 20, ~0u, ~0u});
		u32 room = *n;
		*n = (u32)found.size();
		if (room < found.size()) return SMALL;
		for (size_t i = 0; i < found.size(); i++) infos[i] = found[i];
		return SUCCESS;
	});
}
int nvmlDeviceGetGraphicsRunningProcesses_v3(void *, u32 *n, ProcessInfo *) { *n = 0; return SUCCESS; }

int nvmlDeviceGetTopologyCommonAncestor(void *a, void *, int *level) { return with(a, [&](World &, Gpu &g) { *level = (int)g.ancestor; return SUCCESS; }); }
int nvmlDeviceGetP2PStatus(void *a, void *, int, int *status) { return with(a, [&](World &, Gpu &g) { *status = g.peer ? 0 : 1; return SUCCESS; }); }
int nvmlDeviceGetNvLinkState(void *d, u32 link, int *active) {
	return with(d, [&](World &, Gpu &g) { *active = 1; return link < g.nvlinks ? SUCCESS : INVALID; });
}
int nvmlDeviceGetNvLinkRemoteDeviceType(void *, u32, int *kind) { *kind = 2; return SUCCESS; } // a switch
int nvmlDeviceGetNvLinkRemotePciInfo_v2(void *, u32, PciInfo *p) { memset(p, 0, sizeof *p); p->bus = 255; return SUCCESS; }

int nvmlEventSetCreate(Set **s) {
	World w;
	if (!read(w)) return UNINITIALIZED;
	*s = new Set;
	(*s)->seen = w.events.size();
	return SUCCESS;
}
int nvmlEventSetFree(Set *s) { delete s; return SUCCESS; }
int nvmlDeviceGetSupportedEventTypes(void *d, u64 *types) { return with(d, [&](World &, Gpu &) { *types = 8 | 2 | 16384 | 16; return SUCCESS; }); }
int nvmlDeviceRegisterEvents(void *d, u64 types, Set *s) {
	return with(d, [&](World &, Gpu &g) { s->watched.insert(g.uuid); return types & ~(8ull | 2 | 16384 | 16) ? UNSUPPORTED : SUCCESS; });
}
int nvmlEventSetWait_v2(Set *s, EventData *e, u32 ms) {
	auto end = std::chrono::steady_clock::now() + std::chrono::milliseconds(ms);
	do {
		World w;
		if (!read(w)) return UNINITIALIZED;
		while (s->seen < w.events.size()) {
			Happening h = w.events[s->seen++];
			if (!s->watched.count(h.uuid)) continue;
			for (size_t i = 0; i < w.gpus.size(); i++)
				if (w.gpus[i].uuid == h.uuid) { *e = {(void *)(i + 1), h.type, h.data, ~0u, ~0u}; return SUCCESS; }
		}
		std::this_thread::sleep_for(std::chrono::milliseconds(5));
	} while (std::chrono::steady_clock::now() < end);
	return TIMEOUT;
}

} // extern "C"
