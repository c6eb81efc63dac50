// One rank's communicator, with the thread that does what its calls begin, and the faults that it was asked for.
#pragma once

#include <condition_variable>
#include <fcntl.h>

#include "hub.h"

namespace {

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

} // namespace
