// What goes between the processes: sockets, unique ids, frames.
#pragma once

#include <cerrno>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <mutex>
#include <poll.h>
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

} // namespace
