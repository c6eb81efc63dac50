// The hub of a communicator: takes every rank's requests, matches them, answers.
#pragma once

#include <algorithm>
#include <atomic>
#include <deque>
#include <map>
#include <memory>
#include <random>

#include "reduce.h"
#include "wire.h"

namespace {

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

} // namespace
