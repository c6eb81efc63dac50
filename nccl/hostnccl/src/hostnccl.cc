//go:build ignore

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

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <climits>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <fcntl.h>
#include <map>
#include <memory>
#include <mutex>
#include <poll.h>
#include <random>
#include <string>
#include <sys/socket.h>
#include <sys/un.h>
#include <thread>
#include <unistd.h>
#include <vector>

using Bytes = std::vector<char>;

namespace {

enum Result { Success, UnhandledCudaError, SystemError, InternalError, InvalidArgument, InvalidUsage, RemoteError, InProgress, Timeout };

struct UniqueId {
	char internal[128];
};

std::mutex lastMu;
char lastError[1024];

Result fail(Result r, const std::string &text) {
	std::lock_guard<std::mutex> l(lastMu);
	snprintf(lastError, sizeof lastError, "%s", text.c_str());
	return r;
}

std::string env(const char *name) {
	const char *v = getenv(name);
	return v ? v : "";
}

void sleepMs(int ms) { std::this_thread::sleep_for(std::chrono::milliseconds(ms)); }

[[noreturn]] void hangForEver() {
	for (;;) pause();
}

// ---------------------------------------------------------------------------------------------------- sockets

bool writeAll(int fd, const void *p, size_t n) {
	const char *c = (const char *)p;
	while (n > 0) {
		ssize_t k = send(fd, c, n, MSG_NOSIGNAL);
		if (k < 0 && errno == EINTR) continue;
		if (k <= 0) return false;
		c += k, n -= k;
	}
	return true;
}

bool readAll(int fd, void *p, size_t n) {
	char *c = (char *)p;
	while (n > 0) {
		ssize_t k = recv(fd, c, n, 0);
		if (k < 0 && errno == EINTR) continue;
		if (k <= 0) return false;
		c += k, n -= k;
	}
	return true;
}

// An id holds the name of an abstract unix socket.
sockaddr_un addressOf(const UniqueId &id, socklen_t &len) {
	sockaddr_un a{};
	a.sun_family = AF_UNIX;
	size_t n = strnlen(id.internal + 8, 64);
	memcpy(a.sun_path + 1, id.internal + 8, n);
	len = offsetof(sockaddr_un, sun_path) + 1 + n;
	return a;
}

const uint64_t idMagic = 0x686f73746e63636cull;

// ---------------------------------------------------------------------------------------------------- frames

enum Kind : uint32_t { Hello, Welcome, Bye, Remote, Reply, AllReduce, Broadcast, Reduce, AllGather, ReduceScatter, SendTo, RecvFrom, Split, Shrink, Grow, Finalize };

const char *nameOf(Kind k) {
	static const char *names[] = {"hello", "welcome", "bye", "remote", "reply", "ncclAllReduce", "ncclBroadcast", "ncclReduce", "ncclAllGather",
		"ncclReduceScatter", "ncclSend", "ncclRecv", "ncclCommSplit", "ncclCommShrink", "ncclCommGrow", "ncclCommFinalize"};
	return names[k];
}

struct Frame {
	Kind kind;
	int32_t type, op, peer; // peer: root, peer, rank, or color
	uint64_t count;         // or key, or nranks
	uint64_t seq;           // of the request, repeated in its reply
	uint64_t bytes;         // that follow
};

const int sizes[] = {1, 1, 4, 4, 8, 8, 2, 4, 8, 2, 1, 1};

// ---------------------------------------------------------------------------------------------------- arithmetic

float bitsFloat(uint32_t u) {
	float f;
	memcpy(&f, &u, 4);
	return f;
}
uint32_t floatBits(float f) {
	uint32_t u;
	memcpy(&u, &f, 4);
	return u;
}

struct BF16 {
	uint16_t b;
	operator float() const { return bitsFloat((uint32_t)b << 16); }
	BF16(float f = 0) {
		uint32_t u = floatBits(f);
		b = f != f ? 0x7fff : (u + 0x7fff + (u >> 16 & 1)) >> 16;
	}
};

struct F16 {
	uint16_t b;
	operator float() const {
		uint32_t s = (uint32_t)(b & 0x8000) << 16, e = b >> 10 & 31, m = b & 1023;
		if (e == 31) return bitsFloat(s | 0x7f800000 | m << 13);
		if (e == 0) return (s ? -1 : 1) * (float)m * 0x1p-24f;
		return bitsFloat(s | (e + 112) << 23 | m << 13);
	}
	F16(float f = 0) {
		uint32_t u = floatBits(f), s = u >> 16 & 0x8000;
		u &= 0x7fffffff;
		if (u > 0x7f800000) b = s | 0x7fff;
		else if (u >= 0x477ff000) b = s | 0x7c00;
		else if (u < 0x38800000) b = s | (uint16_t)__builtin_nearbyintf(bitsFloat(u) * 0x1p24f);
		else b = s | (uint16_t)((u - 0x38000000 + 0xfff + (u >> 13 & 1)) >> 13);
	}
};

template <class T> T combine(T a, T b, int op) {
	switch (op) {
	case 1: return T(a * b);
	case 2: return a > b ? a : b;
	case 3: return a < b ? a : b;
	}
	return T(a + b);
}

template <class T> void reduceAs(const std::vector<const char *> &in, size_t n, int op, char *out) {
	for (size_t i = 0; i < n; i++) {
		T acc;
		memcpy((void *)&acc, in[0] + i * sizeof(T), sizeof(T));
		for (size_t r = 1; r < in.size(); r++) {
			T x;
			memcpy((void *)&x, in[r] + i * sizeof(T), sizeof(T));
			acc = combine<T>(acc, x, op);
		}
		if (op == 4) acc = T(acc / T(in.size()));
		memcpy(out + i * sizeof(T), (void *)&acc, sizeof(T));
	}
}

void reduceAll(const std::vector<const char *> &in, size_t n, int type, int op, char *out) {
	switch (type) {
	case 0: return reduceAs<int8_t>(in, n, op, out);
	case 1: return reduceAs<uint8_t>(in, n, op, out);
	case 2: return reduceAs<int32_t>(in, n, op, out);
	case 3: return reduceAs<uint32_t>(in, n, op, out);
	case 4: return reduceAs<int64_t>(in, n, op, out);
	case 5: return reduceAs<uint64_t>(in, n, op, out);
	case 6: return reduceAs<F16>(in, n, op, out);
	case 7: return reduceAs<float>(in, n, op, out);
	case 8: return reduceAs<double>(in, n, op, out);
	case 9: return reduceAs<BF16>(in, n, op, out);
	}
}

// ---------------------------------------------------------------------------------------------------- the hub

UniqueId startHub();

struct Hub {
	struct Peer {
		int fd = -1;
		std::mutex writing;
		uint64_t calls = 0; // collectives
		bool gone = false;
	};
	struct Part {
		bool here = false;
		Frame f;
		Bytes data;
	};
	struct Meeting {
		int arrived = 0;
		std::vector<Part> parts;
	};
	using Pair = std::pair<int, int>;

	int listener;
	std::mutex mu;
	int n = 0, joined = 0;
	std::vector<std::unique_ptr<Peer>> peers;
	std::map<uint64_t, Meeting> meetings;
	std::map<Bytes, Meeting> shrinks; // by who is left out
	std::map<Pair, std::deque<Bytes>> sent;
	std::map<Pair, std::deque<uint64_t>> wanted;

	void accept() {
		for (;;) {
			int fd = ::accept4(listener, nullptr, nullptr, SOCK_CLOEXEC);
			if (fd < 0) return;
			std::thread([this, fd] { serve(fd); }).detach();
		}
	}

	void serve(int fd) {
		Frame f;
		if (!readAll(fd, &f, sizeof f) || f.kind != Hello || !enter(fd, f)) {
			close(fd);
			return;
		}
		int rank = f.peer;
		for (;;) {
			Bytes data;
			if (!readAll(fd, &f, sizeof f)) break;
			data.resize(f.bytes);
			if (f.bytes > 0 && !readAll(fd, data.data(), f.bytes)) break;
			if (f.kind == Bye) {
				leave(rank);
				return;
			}
			handle(rank, f, std::move(data));
		}
		leave(rank);
		Frame lost{Remote, 0, 0, rank, 0, 0, 0};
		for (int r = 0; r < n; r++) reply(r, lost, nullptr, 0);
	}

	bool enter(int fd, const Frame &f) {
		std::unique_lock<std::mutex> l(mu);
		if (n == 0) {
			n = f.count;
			for (int r = 0; r < n; r++) peers.emplace_back(new Peer);
		}
		if ((int)f.count != n || f.peer < 0 || f.peer >= n || peers[f.peer]->fd >= 0) return false; // a duplicate: it waits for ever, or sees the end
		peers[f.peer]->fd = fd;
		if (++joined < n) return true;
		l.unlock();
		shutdown(listener, SHUT_RDWR);
		close(listener);
		for (int r = 0; r < n; r++) reply(r, Frame{Welcome, 0, 0, 0, 0, 0, 0}, nullptr, 0);
		return true;
	}

	void leave(int rank) {
		Peer &p = *peers[rank];
		std::lock_guard<std::mutex> l(p.writing);
		p.gone = true;
		close(p.fd);
	}

	void reply(int rank, Frame f, const void *data, size_t bytes) {
		Peer &p = *peers[rank];
		std::lock_guard<std::mutex> l(p.writing);
		if (p.gone || p.fd < 0) return;
		f.bytes = bytes;
		if (writeAll(p.fd, &f, sizeof f) && bytes > 0) writeAll(p.fd, data, bytes);
	}

	void answer(int rank, const Frame &request, const void *data, size_t bytes) {
		reply(rank, Frame{Reply, 0, 0, 0, 0, request.seq, 0}, data, bytes);
	}

	void handle(int rank, const Frame &f, Bytes data) {
		if (f.kind == SendTo || f.kind == RecvFrom) return pair(rank, f, std::move(data));
		std::unique_lock<std::mutex> l(mu);
		int need = n;
		Meeting *m;
		Bytes key = data;
		uint64_t index = 0;
		if (f.kind == Shrink) {
			m = &shrinks[key];
			need = n - (int)(data.size() / sizeof(int));
		} else {
			index = peers[rank]->calls++;
			m = &meetings[index];
		}
		m->parts.resize(n);
		m->parts[rank] = Part{true, f, std::move(data)};
		if (++m->arrived < need) return;
		Meeting full = std::move(*m);
		if (f.kind == Shrink) shrinks.erase(key);
		else meetings.erase(index);
		l.unlock();
		const Frame *first = nullptr;
		for (auto &p : full.parts) {
			if (!p.here) continue;
			if (!first) first = &p.f;
			bool plain = p.f.kind != Split && p.f.kind != Grow && p.f.kind != Shrink;
			if (p.f.kind != first->kind || (plain && (p.f.type != first->type || p.f.op != first->op || p.f.count != first->count || p.f.peer != first->peer))) return; // never answered
		}
		meet(full);
	}

	void meet(Meeting &m) {
		const Frame f = m.parts[0].here ? m.parts[0].f : firstOf(m);
		size_t es = f.kind <= ReduceScatter ? sizes[f.type] : 0, bytes = f.count * es;
		std::vector<const char *> in;
		for (auto &p : m.parts) in.push_back(p.data.data());
		Bytes out;
		switch (f.kind) {
		case AllReduce:
		case Reduce:
			out.resize(bytes);
			reduceAll(in, f.count, f.type, f.op, out.data());
			break;
		case ReduceScatter:
			out.resize(bytes * n);
			reduceAll(in, f.count * n, f.type, f.op, out.data());
			break;
		case Broadcast: out = m.parts[f.peer].data; break;
		case AllGather:
			for (auto &p : m.parts) out.insert(out.end(), p.data.begin(), p.data.end());
			break;
		case Split: return split(m);
		case Shrink: return shrink(m);
		case Grow:
			for (auto &p : m.parts)
				if (!p.data.empty()) out = p.data;
			break;
		default: break;
		}
		for (int r = 0; r < n; r++) {
			if (f.kind == ReduceScatter) answer(r, m.parts[r].f, out.data() + r * bytes, bytes);
			else if (f.kind == Reduce && r != f.peer) answer(r, m.parts[r].f, nullptr, 0);
			else answer(r, m.parts[r].f, out.data(), out.size());
		}
	}

	static Frame firstOf(Meeting &m) {
		for (auto &p : m.parts)
			if (p.here) return p.f;
		abort();
	}

	struct Place {
		int nranks, rank;
		UniqueId id;
	};

	void split(Meeting &m) {
		std::map<int, std::vector<std::pair<uint64_t, int>>> colors;
		for (int r = 0; r < n; r++) colors[m.parts[r].f.peer].push_back({m.parts[r].f.count, r});
		for (auto &c : colors) {
			std::stable_sort(c.second.begin(), c.second.end(), [](auto &a, auto &b) { return (int64_t)a.first < (int64_t)b.first; });
			UniqueId id = c.first < 0 ? UniqueId{} : startHub();
			for (size_t i = 0; i < c.second.size(); i++) {
				Place p{c.first < 0 ? 0 : (int)c.second.size(), (int)i, id};
				answer(c.second[i].second, m.parts[c.second[i].second].f, &p, sizeof p);
			}
		}
	}

	void shrink(Meeting &m) {
		Place p{0, 0, startHub()};
		for (auto &x : m.parts) p.nranks += x.here;
		for (int r = 0; r < n; r++)
			if (m.parts[r].here) {
				answer(r, m.parts[r].f, &p, sizeof p);
				p.rank++;
			}
	}

	void pair(int rank, const Frame &f, Bytes data) {
		std::unique_lock<std::mutex> l(mu);
		Pair k = f.kind == SendTo ? Pair{rank, f.peer} : Pair{f.peer, rank};
		if (f.kind == SendTo) sent[k].push_back(std::move(data));
		else wanted[k].push_back(f.seq);
		auto &s = sent[k];
		auto &w = wanted[k];
		if (s.empty() || w.empty()) return;
		Bytes b = std::move(s.front());
		Frame r{Reply, 0, 0, 0, 0, w.front(), 0};
		s.pop_front(), w.pop_front();
		l.unlock();
		reply(k.second, r, b.data(), b.size());
	}
};

UniqueId startHub() {
	static std::atomic<int> count{0};
	UniqueId id{};
	memcpy(id.internal, &idMagic, 8);
	snprintf(id.internal + 8, 64, "hostnccl-%d-%d-%08x", getpid(), count++, std::random_device()());
	Hub *h = new Hub; // lives as long as the process
	h->listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	socklen_t len;
	sockaddr_un a = addressOf(id, len);
	if (h->listener < 0 || bind(h->listener, (sockaddr *)&a, len) != 0 || listen(h->listener, 256) != 0) return UniqueId{};
	std::thread([h] { h->accept(); }).detach();
	return id;
}

// ---------------------------------------------------------------------------------------------------- faults

struct Faults {
	int hang = 0, die = 0, error = 0, errorAt = 0, initError = 0, slowAbort = 0;
	bool hangInit = false, hangAbort = false, hangFinalize = false;

	explicit Faults(int rank) {
		std::string all = env("HOSTNCCL_FAULT") + ",";
		for (size_t at = 0, end; (end = all.find(',', at)) != std::string::npos; at = end + 1) {
			std::string f = all.substr(at, end - at);
			int r = rank, used = 0;
			if (sscanf(f.c_str(), "rank%d:%n", &r, &used) == 1 && used > 0) f = f.substr(used);
			if (r != rank) continue;
			sscanf(f.c_str(), "hang@%d", &hang);
			sscanf(f.c_str(), "die@%d", &die);
			sscanf(f.c_str(), "error%d@%d", &error, &errorAt);
			sscanf(f.c_str(), "error-init%d", &initError);
			sscanf(f.c_str(), "slow-abort%d", &slowAbort);
			hangInit |= f == "hang-init";
			hangAbort |= f == "hang-abort";
			hangFinalize |= f == "hang-finalize";
		}
	}
};

// ---------------------------------------------------------------------------------------------------- a rank

struct Comm;

struct Op {
	Comm *comm;
	Frame f;
	const void *send;
	void *recv;
	size_t sendBytes;
	Bytes extra;           // sent instead of *send
	Comm **slot = nullptr; // Split, Shrink
	Comm *child = nullptr; // Grow
};

const uint64_t commMagic = 0x636f6d6d636f6d6dull;

struct Comm {
	uint64_t magic = commMagic;
	int nranks, rank, fd = -1;
	bool blocking = true, p2p, revoked = false, suspended = false, finalized = false;
	UniqueId id;
	Faults faults;
	uint64_t seq = 0;
	int moved = 0; // operations that move data
	std::atomic<int> pending{0}, error{0};
	std::atomic<bool> aborted{false}, interrupt{false};

	std::mutex mu;
	std::condition_variable wake, idle;
	std::deque<std::vector<Op>> queue;
	bool stop = false;
	std::thread worker;

	Comm(int n, int r, const UniqueId &i) : nranks(n), rank(r), p2p(env("HOSTNCCL_TRANSPORT") == "p2p"), id(i), faults(r) {}

	void start() {
		worker = std::thread([this] { work(); });
	}

	void setError(Result r, const std::string &text) {
		int none = 0;
		if (error.compare_exchange_strong(none, r)) fail(r, text);
	}

	// done ends one thing that was pending.
	void done() {
		std::lock_guard<std::mutex> l(mu);
		pending--;
		idle.notify_all();
	}

	void work() {
		for (;;) {
			std::vector<Op> ops;
			{
				std::unique_lock<std::mutex> l(mu);
				wake.wait(l, [this] { return stop || !queue.empty(); });
				if (stop) return;
				ops = std::move(queue.front());
				queue.pop_front();
			}
			if (error == 0 && !aborted) run(ops);
			done();
		}
	}

	// hang until aborted or interrupted.
	void hang() {
		while (!aborted && !interrupt) sleepMs(2);
	}

	// join the hub; returns when all ranks have.
	void join() {
		std::string ms = env("HOSTNCCL_INIT_MS");
		for (int left = ms.empty() ? 20 : atoi(ms.c_str()); left > 0 && !aborted; left -= 2) sleepMs(2);
		if (faults.initError) return setError(Result(faults.initError), "hostnccl: the fault that was asked for, at init");
		if (faults.hangInit) return hang();
		uint64_t m;
		memcpy(&m, id.internal, 8);
		if (m != idMagic) return setError(InvalidArgument, "hostnccl: this is not a unique id of hostnccl");
		socklen_t len;
		sockaddr_un a = addressOf(id, len);
		int s = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
		if (connect(s, (sockaddr *)&a, len) != 0) {
			close(s);
			return setError(SystemError, std::string("hostnccl: connecting to the process that made the unique id: ") + strerror(errno));
		}
		fd = s;
		Frame hello{Hello, 0, 0, rank, (uint64_t)nranks, 0, 0};
		if (!writeAll(fd, &hello, sizeof hello)) return broken(-1);
		Frame f;
		Bytes none;
		if (receive(f, none) && f.kind == Remote) broken(f.peer);
	}

	// broken: the hub or a peer has gone. Over p2p nobody notices.
	void broken(int peer) {
		if (aborted || interrupt) return;
		if (p2p) return hang();
		std::string who = peer < 0 ? "the hub" : "rank " + std::to_string(peer);
		setError(RemoteError, "hostnccl: connection closed by remote peer: " + who + "; is it still running?");
	}

	// receive the next frame; false when aborted or interrupted, or the connection is broken.
	bool receive(Frame &f, Bytes &data) {
		for (;;) {
			if (aborted || interrupt) return false;
			pollfd p{fd, POLLIN, 0};
			if (poll(&p, 1, 5) > 0) break;
		}
		if (!readAll(fd, &f, sizeof f)) return broken(-1), false;
		data.resize(f.bytes);
		if (f.bytes > 0 && !readAll(fd, data.data(), f.bytes)) return broken(-1), false;
		return true;
	}

	// run a group: all requests go out, then all replies come in.
	void run(std::vector<Op> &ops) {
		std::map<uint64_t, Op *> open;
		for (Op &o : ops) {
			if (!inject(o)) return;
			o.f.seq = ++seq;
			const void *data = o.extra.empty() ? o.send : o.extra.data();
			o.f.bytes = o.extra.empty() ? o.sendBytes : o.extra.size();
			trace(o);
			if (!writeAll(fd, &o.f, sizeof o.f) || (o.f.bytes > 0 && !writeAll(fd, data, o.f.bytes))) return broken(-1);
			if (o.f.kind != SendTo) open[o.f.seq] = &o;
		}
		while (!open.empty()) {
			Frame f;
			Bytes data;
			if (!receive(f, data)) return;
			if (f.kind == Remote) return broken(f.peer);
			auto it = open.find(f.seq);
			if (it == open.end()) continue; // of something that was interrupted
			finish(*it->second, data);
			open.erase(it);
		}
	}

	// inject the fault that is due; false if the operation is not to take place.
	bool inject(const Op &o) {
		if (o.f.kind == Finalize && faults.hangFinalize) return hang(), false;
		if (o.f.kind > RecvFrom) return true;
		moved++;
		if (moved == faults.die) _exit(9);
		if (moved == faults.hang) return hang(), false;
		if (moved == faults.errorAt) return setError(Result(faults.error), "hostnccl: the fault that was asked for, in " + std::string(nameOf(o.f.kind))), false;
		return true;
	}

	void trace(const Op &o) {
		std::string path = env("HOSTNCCL_TRACE");
		if (path.empty() || o.f.kind > RecvFrom) return;
		char line[160];
		int n = snprintf(line, sizeof line, "%d %s %llu %d %llu\n", rank, nameOf(o.f.kind), (unsigned long long)o.f.count, o.f.type, (unsigned long long)o.f.count * sizes[o.f.type]);
		int t = open(path.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
		if (t >= 0 && write(t, line, n) != n) perror("hostnccl: trace");
		if (t >= 0) close(t);
	}

	void finish(Op &o, const Bytes &data) {
		switch (o.f.kind) {
		case Split:
		case Shrink: {
			Hub::Place p;
			memcpy(&p, data.data(), sizeof p);
			if (p.nranks == 0) return;
			Comm *c = new Comm(p.nranks, p.rank, p.id);
			c->blocking = blocking;
			c->join();
			if (c->error) return setError(Result(c->error.load()), "hostnccl: forming the new communicator failed");
			c->start();
			__atomic_store_n(o.slot, c, __ATOMIC_RELEASE);
			return;
		}
		case Grow:
			memcpy(&o.child->id, data.data(), sizeof(UniqueId));
			o.child->join();
			o.child->start();
			o.child->done();
			__atomic_store_n(o.slot, o.child, __ATOMIC_RELEASE);
			return;
		case RecvFrom:
		default:
			if (!data.empty() && o.recv) memcpy(o.recv, data.data(), data.size());
		}
	}

	Result enqueue(std::vector<Op> ops) {
		{
			std::lock_guard<std::mutex> l(mu);
			pending++;
			queue.push_back(std::move(ops));
			wake.notify_all();
		}
		return settle();
	}

	// settle is a call's result: at once for a non-blocking communicator.
	Result settle() {
		if (!blocking) return state();
		std::unique_lock<std::mutex> l(mu);
		idle.wait(l, [this] { return pending == 0; });
		return Result(error.load());
	}

	Result state() {
		if (error) return Result(error.load());
		return pending > 0 ? InProgress : Success;
	}

	void quiet() {
		std::unique_lock<std::mutex> l(mu);
		idle.wait(l, [this] { return pending == 0; });
	}

	void end(bool goodbye) {
		if (goodbye && fd >= 0) {
			Frame bye{Bye, 0, 0, rank, 0, 0, 0};
			writeAll(fd, &bye, sizeof bye);
		}
		{
			std::lock_guard<std::mutex> l(mu);
			stop = true;
			aborted = true;
			wake.notify_all();
		}
		if (worker.joinable()) worker.join();
		if (fd >= 0) close(fd);
		magic = 0;
		delete this;
	}
};

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
