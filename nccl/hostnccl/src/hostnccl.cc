// hostnccl is a libnccl.so.2 for machines without a GPU: ranks are processes (or threads) of one host, addresses are host
// addresses, streams are ignored. What a call begins, a thread of the communicator does, so that a non-blocking one
// is "in progress" as NVIDIA's is, and can hang, fail and be aborted.
//
// The process that makes a unique id becomes the hub of its communicator. The id carries the hub's socket; every rank
// connects, and every operation is a frame to the hub and one back. Collectives are matched by their place in
// each rank's order; ranks that call different things, or not at all, wait for ever, as with NVIDIA's.
//
// Sums are taken in order of rank, in the type itself: the hub does it once, so all ranks get the same bits.
//
// Environment, read when a communicator begins:
//
//	HOSTNCCL_FAULT      comma list of [rankR:]what: hang@K die@K errorE@K (at this rank's K-th operation that moves data,
//	                    from 1; E is an ncclResult_t), hang-init, error-initE, hang-abort, hang-finalize,
//	                    slow-abortMS
//	HOSTNCCL_TRANSPORT  socket (default): a lost peer is a remote error; p2p: nothing is noticed, as over NVLink
//	HOSTNCCL_INIT_MS    how long forming a communicator takes at least; 20
//	HOSTNCCL_VERSION    what ncclGetVersion tells; 23007
//	HOSTNCCL_TRACE      file to which each operation appends a line: rank, name, count, type, bytes

#include <climits>

#include "comm.h"

namespace {

thread_local int depth = 0;
thread_local std::vector<Op> grouped;

Result issue(Op o) {
	if (depth > 0) {
		grouped.push_back(std::move(o));
		return Success;
	}
	Comm *c = o.comm;
	std::vector<Op> one;
	one.push_back(std::move(o));
	return c->enqueue(std::move(one));
}

Result check(Comm *c, const char *call) {
	if (!c || c->magic != commMagic) return fail(InvalidArgument, std::string(call) + ": comm is not a communicator");
	return Success;
}

Result move(const char *call, Kind k, const void *s, void *r, size_t count, int type, int op, int root, Comm *c, size_t sendCount) {
	if (Result e = check(c, call)) return e;
	if (type < 0 || type > 11) return fail(InvalidArgument, std::string(call) + ": no such data type");
	bool sum = k == AllReduce || k == Reduce || k == ReduceScatter;
	if (sum && (op < 0 || op > 4 || type > 9)) return fail(InvalidArgument, std::string(call) + ": no such reduction");
	if (root < 0 || root >= c->nranks) return fail(InvalidArgument, std::string(call) + ": rank " + std::to_string(root) + " of " + std::to_string(c->nranks));
	if (count > 0 && ((sendCount > 0 && !s) || (k != SendTo && k != Reduce && !r))) return fail(InvalidArgument, std::string(call) + ": a buffer is NULL");
	if (c->revoked || c->suspended || c->finalized) return fail(InvalidUsage, std::string(call) + ": the communicator is revoked, suspended or finalized");
	if (c->error) return Result(c->error.load());
	return issue(Op{c, Frame{k, type, op, root, count, 0, 0}, s, r, sendCount * sizes[type], {}});
}

// The library's ncclConfig_t; what the caller's is shorter by is undefined.
struct Config {
	size_t size;
	unsigned magic, version;
	int blocking, cgaClusterSize, minCTAs, maxCTAs;
	const char *netName;
	int splitShare, trafficClass;
	char rest[48];
};

Result configure(Comm *c, const void *given) {
	if (!given) return Success;
	Config f;
	memset(&f, 0, sizeof f);
	size_t size;
	memcpy(&size, given, sizeof size);
	if (size < 24 || size > 4096) return fail(InvalidArgument, "ncclConfig_t argument not initialized via NCCL_CONFIG_INITIALIZER: size " + std::to_string(size));
	memcpy((void *)&f, given, size < sizeof f ? size : sizeof f);
	if (f.magic != 0xcafebeef) return fail(InvalidArgument, "ncclConfig_t argument not initialized via NCCL_CONFIG_INITIALIZER: magic");
	if (f.blocking != INT_MIN && f.blocking != 0 && f.blocking != 1) return fail(InvalidArgument, "Invalid config blocking attribute value");
	if ((f.minCTAs == INT_MIN) != (f.maxCTAs == INT_MIN) || (f.minCTAs != INT_MIN && (f.minCTAs <= 0 || f.maxCTAs < f.minCTAs)))
		return fail(InvalidArgument, "Invalid config min/max channels attribute value");
	if (f.cgaClusterSize != INT_MIN && (f.cgaClusterSize < 0 || f.cgaClusterSize > 8)) return fail(InvalidArgument, "Invalid config cgaClusterSize attribute value");
	if (f.splitShare != INT_MIN && f.splitShare != 0 && f.splitShare != 1) return fail(InvalidArgument, "Invalid config splitShare attribute value");
	if (f.netName) return fail(InvalidArgument, "hostnccl has no network plug-in");
	c->blocking = f.blocking != 0;
	return Success;
}

// begin a communicator: its thread joins the hub.
Result begin(Comm **out, int n, const UniqueId &id, int rank, const void *config) {
	if (!out) return fail(InvalidArgument, "comm is NULL");
	*out = nullptr;
	if (n < 1 || rank < 0 || rank >= n) return fail(InvalidArgument, "Invalid rank requested : " + std::to_string(rank) + "/" + std::to_string(n));
	Comm *c = new Comm(n, rank, id);
	if (Result e = configure(c, config)) {
		delete c;
		return e;
	}
	*out = c;
	c->pending = 1;
	c->worker = std::thread([c] {
		c->join();
		c->done();
		c->work();
	});
	return c->settle();
}

} // namespace

#define API extern "C" __attribute__((visibility("default")))

API Result ncclGetVersion(int *v) {
	std::string s = env("HOSTNCCL_VERSION");
	*v = s.empty() ? 23007 : atoi(s.c_str());
	return Success;
}

API const char *ncclGetErrorString(Result r) {
	static const char *names[] = {"no error", "unhandled cuda error", "unhandled system error", "internal error", "invalid argument", "invalid usage",
		"remote process exited or there was a network error", "in progress", "timeout"};
	return r >= 0 && r <= Timeout ? names[r] : "unknown result code";
}

API const char *ncclGetLastError(Comm *) { return lastError; }

API Result ncclGetUniqueId(UniqueId *id) {
	*id = startHub();
	uint64_t m;
	memcpy(&m, id->internal, 8);
	return m == idMagic ? Success : fail(SystemError, std::string("hostnccl: no socket for the unique id: ") + strerror(errno));
}

API Result ncclCommInitRankConfig(Comm **c, int n, UniqueId id, int rank, void *config) { return begin(c, n, id, rank, config); }
API Result ncclCommInitRank(Comm **c, int n, UniqueId id, int rank) { return begin(c, n, id, rank, nullptr); }

API Result ncclCommGetAsyncError(Comm *c, int *out) {
	if (Result e = check(c, "ncclCommGetAsyncError")) return e;
	*out = c->state();
	return Success;
}

API Result ncclCommCount(Comm *c, int *out) {
	if (Result e = check(c, "ncclCommCount")) return e;
	*out = c->nranks;
	return Success;
}

API Result ncclCommUserRank(Comm *c, int *out) {
	if (Result e = check(c, "ncclCommUserRank")) return e;
	*out = c->rank;
	return Success;
}

API Result ncclCommCuDevice(Comm *c, int *out) {
	if (Result e = check(c, "ncclCommCuDevice")) return e;
	*out = 0;
	return Success;
}

API Result ncclCommFinalize(Comm *c) {
	if (Result e = check(c, "ncclCommFinalize")) return e;
	if (c->finalized || c->revoked) return fail(InvalidUsage, "ncclCommFinalize: finalized before, or revoked");
	c->finalized = true;
	return issue(Op{c, Frame{Finalize, 0, 0, 0, 0, 0, 0}, nullptr, nullptr, 0, {}});
}

API Result ncclCommDestroy(Comm *c) {
	if (Result e = check(c, "ncclCommDestroy")) return e;
	c->quiet();
	c->end(true);
	return Success;
}

API Result ncclCommAbort(Comm *c) {
	if (Result e = check(c, "ncclCommAbort")) return e;
	if (c->faults.hangAbort) hangForEver();
	sleepMs(c->faults.slowAbort);
	c->aborted = true;
	c->quiet();
	c->end(false);
	return Success;
}

API Result ncclCommSplit(Comm *c, int color, int key, Comm **out, void *config) {
	if (Result e = check(c, "ncclCommSplit")) return e;
	Comm probe(1, 0, UniqueId{});
	if (Result e = configure(&probe, config)) return e;
	*out = nullptr;
	Op o{c, Frame{Split, 0, 0, color, (uint64_t)key, 0, 0}, nullptr, nullptr, 0, {}};
	o.slot = out;
	return issue(std::move(o));
}

API Result ncclAllReduce(const void *s, void *r, size_t n, int t, int op, Comm *c, void *) { return move("ncclAllReduce", AllReduce, s, r, n, t, op, 0, c, n); }
API Result ncclReduce(const void *s, void *r, size_t n, int t, int op, int root, Comm *c, void *) { return move("ncclReduce", Reduce, s, r, n, t, op, root, c, n); }
API Result ncclAllGather(const void *s, void *r, size_t n, int t, Comm *c, void *) { return move("ncclAllGather", AllGather, s, r, n, t, 0, 0, c, n); }
API Result ncclSend(const void *s, size_t n, int t, int peer, Comm *c, void *) { return move("ncclSend", SendTo, s, nullptr, n, t, 0, peer, c, n); }
API Result ncclRecv(void *r, size_t n, int t, int peer, Comm *c, void *) { return move("ncclRecv", RecvFrom, nullptr, r, n, t, 0, peer, c, 0); }

API Result ncclBroadcast(const void *s, void *r, size_t n, int t, int root, Comm *c, void *) {
	if (Result e = check(c, "ncclBroadcast")) return e;
	return move("ncclBroadcast", Broadcast, s, r, n, t, 0, root, c, c->rank == root ? n : 0);
}

API Result ncclReduceScatter(const void *s, void *r, size_t n, int t, int op, Comm *c, void *) {
	if (Result e = check(c, "ncclReduceScatter")) return e;
	return move("ncclReduceScatter", ReduceScatter, s, r, n, t, op, 0, c, n * c->nranks);
}

API Result ncclGroupStart() {
	depth++;
	return Success;
}

API Result ncclGroupEnd() {
	if (depth == 0) return fail(InvalidUsage, "ncclGroupEnd: not in a group call.");
	if (--depth > 0) return Success;
	std::map<Comm *, std::vector<Op>> by;
	for (Op &o : grouped) by[o.comm].push_back(std::move(o));
	grouped.clear();
	Result all = Success;
	for (auto &b : by) {
		bool was = b.first->blocking;
		b.first->blocking = false;
		Result r = b.first->enqueue(std::move(b.second));
		b.first->blocking = was;
		if (r != Success && (all == Success || all == InProgress)) all = r;
	}
	for (auto &b : by)
		if (b.first->blocking) {
			Result r = b.first->settle();
			if (all == Success || all == InProgress) all = r;
		}
	return all;
}

API Result ncclMemAlloc(void **p, size_t n) {
	*p = calloc(1, n);
	return *p ? Success : fail(SystemError, "ncclMemAlloc: out of memory");
}

API Result ncclMemFree(void *p) {
	free(p);
	return Success;
}

API Result ncclCommRegister(Comm *c, void *p, size_t n, void **handle) {
	if (Result e = check(c, "ncclCommRegister")) return e;
	if (!p || n == 0) return fail(InvalidArgument, "ncclCommRegister: no memory");
	*handle = p;
	return Success;
}

API Result ncclCommDeregister(Comm *c, void *handle) {
	if (Result e = check(c, "ncclCommDeregister")) return e;
	return handle ? Success : fail(InvalidArgument, "ncclCommDeregister: no handle");
}

API Result ncclCommInitRankScalable(Comm **c, int n, int rank, int nid, UniqueId *ids, void *config) {
	if (nid < 1 || nid > n) return fail(InvalidArgument, "improper usage of ncclCommInitRank: nId = " + std::to_string(nid));
	return begin(c, n, ids[0], rank, config);
}

API Result ncclCommShrink(Comm *c, int *exclude, int count, Comm **out, void *config, int flags) {
	if (Result e = check(c, "ncclCommShrink")) return e;
	Comm probe(1, 0, UniqueId{});
	if (Result e = configure(&probe, config)) return e;
	*out = nullptr;
	if (flags == 1) {
		c->interrupt = true;
		c->quiet();
		c->interrupt = false;
		c->error = 0;
	}
	std::map<int, bool> set;
	for (int i = 0; i < count; i++) set[exclude[i]] = true;
	if (set.empty() || set.count(c->rank)) return fail(InvalidArgument, "ncclCommShrink: no rank is excluded, or this one is");
	Op o{c, Frame{Shrink, 0, 0, 0, 0, 0, 0}, nullptr, nullptr, 0, {}};
	for (auto &e : set) o.extra.insert(o.extra.end(), (const char *)&e.first, (const char *)&e.first + sizeof(int));
	o.slot = out;
	return issue(std::move(o));
}

API Result ncclCommRevoke(Comm *c, int flags) {
	if (Result e = check(c, "ncclCommRevoke")) return e;
	if (flags != 0) return fail(InvalidArgument, "ncclCommRevoke: flags must be 0");
	c->revoked = c->interrupt = true;
	c->quiet();
	c->interrupt = false;
	return Success;
}

API Result ncclCommGetUniqueId(Comm *c, UniqueId *id) {
	if (Result e = check(c, "ncclCommGetUniqueId")) return e;
	*id = startHub();
	return Success;
}

API Result ncclCommGrow(Comm *c, int n, const UniqueId *id, int rank, Comm **out, void *config) {
	if (!c) {
		if (!id || rank < 0 || rank >= n) return fail(InvalidArgument, "ncclCommGrow: a new rank needs an id and its rank");
		return begin(out, n, *id, rank, config);
	}
	if (Result e = check(c, "ncclCommGrow")) return e;
	if (n <= c->nranks || rank != -1) return fail(InvalidArgument, "ncclCommGrow: existing ranks give rank -1 and a larger size");
	Comm *child = new Comm(n, c->rank, UniqueId{});
	if (Result e = configure(child, config)) {
		delete child;
		return e;
	}
	child->pending = 1;
	*out = child;
	Op o{c, Frame{Grow, 0, 0, 0, 0, 0, 0}, nullptr, nullptr, 0, {}};
	if (id) o.extra.assign(id->internal, id->internal + sizeof *id);
	o.slot = out;
	o.child = child;
	return issue(std::move(o));
}

API Result ncclCommSuspend(Comm *c, int flags) {
	if (Result e = check(c, "ncclCommSuspend")) return e;
	if (flags != 1 || c->suspended) return fail(InvalidArgument, "ncclCommSuspend: flags must be 1, and only once");
	c->suspended = true;
	return Success;
}

API Result ncclCommResume(Comm *c) {
	if (Result e = check(c, "ncclCommResume")) return e;
	if (!c->suspended) return fail(InvalidUsage, "ncclCommResume: not suspended");
	c->suspended = false;
	return Success;
}

API Result ncclCommMemStats(Comm *c, int stat, uint64_t *v) {
	if (Result e = check(c, "ncclCommMemStats")) return e;
	if (stat < 0 || stat > 3) return fail(InvalidArgument, "ncclCommMemStats: no such statistic");
	*v = stat == 1 ? c->suspended : 0; // no GPU memory
	return Success;
}
