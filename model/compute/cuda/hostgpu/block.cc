// block.cc is a GPU with one multiprocessor that runs one block at a time, and in it one thread at a time.
//
// A thread of a block is a fiber. It runs until it must wait: at a barrier of the block or at an instruction of its warp, which the
// last lane to arrive carries out for all. When nobody can go on and not all are done, the kernel would hang or be undefined: the
// program stops and says who waits where.
//
// HOSTGPU_ORDER, a number, has threads and warps take turns in an order drawn from it, another one at every barrier: a kernel whose
// result depends on it lacks a barrier. 0, the default, is the order of their indices.
#include "block.h"
#include <mutex>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string>
#include <sys/mman.h>
#include <unordered_map>
#include <vector>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/common_interface_defs.h>
#define SANITIZED 1
#else
#define SANITIZED 0
#endif

namespace hostgpu {

Dim3 threadIdx, blockIdx, blockDim, gridDim;

// ---- context switches ----

#if defined(__x86_64__)
struct Context {
	void *sp;
};
extern "C" void hostgpu_switch(void **save, void *load);
asm(R"(
.text
.globl hostgpu_switch
.hidden hostgpu_switch
.type hostgpu_switch,@function
hostgpu_switch:
	pushq %rbp
	pushq %rbx
	pushq %r12
	pushq %r13
	pushq %r14
	pushq %r15
	movq %rsp, (%rdi)
	movq %rsi, %rsp
	popq %r15
	popq %r14
	popq %r13
	popq %r12
	popq %rbx
	popq %rbp
	ret
.size hostgpu_switch,.-hostgpu_switch
)");
static void start(Context &c, char *stack, size_t size, void (*f)()) {
	void **sp = (void **)((uintptr_t)(stack + size) & ~(uintptr_t)15);
	*--sp = nullptr; // f's return address: it never returns; keeps the alignment that a call leaves
	*--sp = (void *)f;
	sp -= 6;
	memset(sp, 0, 6 * sizeof *sp);
	c.sp = sp;
}
static void jump(Context &from, Context &to) { hostgpu_switch(&from.sp, to.sp); }
#else
#include <ucontext.h>
struct Context {
	ucontext_t u;
};
static void start(Context &c, char *stack, size_t size, void (*f)()) {
	getcontext(&c.u);
	c.u.uc_stack.ss_sp = stack;
	c.u.uc_stack.ss_size = size;
	c.u.uc_link = nullptr;
	makecontext(&c.u, f, 0);
}
static void jump(Context &from, Context &to) { swapcontext(&from.u, &to.u); }
#endif

// ---- the block ----

enum State { READY, AT_BARRIER, AT_WARP, DONE };

struct Copy {
	void *dst;
	const void *src;
	bool in;
};

struct Fiber {
	Context context;
	State state;
	Dim3 index;
	void *fake; // address sanitizer's
	std::vector<Copy> copies;
	std::vector<size_t> groups; // ends in copies
};

// A lane's operands of one warp instruction.
struct Operand {
	const char *kind;
	uint64_t value;
	const uint32_t *a;
	uint32_t b[4];
};

struct Warp {
	int arrived;
	unsigned turn; // two result buffers take turns: a lane may be one instruction ahead of another's reading
	Operand in[32];
	uint64_t values[2][32];
	uint32_t words[2][32][4];
	float product[2][16][8];
};

static const size_t stackSize = SANITIZED ? 128 << 10 : 64 << 10;
static char *stacks;
static Fiber *fibers;
static Warp *warps;
static int threads, atBarrier, now;
static Context scheduler;
static const Kernel *kernel;
static void **arguments;
static char *shared;
static size_t sharedSize;

void fail(const char *format, ...) {
	fprintf(stderr, "hostgpu: %s, block (%u,%u,%u), thread %d: ", kernel ? kernel->name : "no kernel", blockIdx.x, blockIdx.y, blockIdx.z, now);
	va_list list;
	va_start(list, format);
	vfprintf(stderr, format, list);
	va_end(list);
	fputc('\n', stderr);
	abort();
}

#if SANITIZED
static const void *mainStack;
static size_t mainSize;
#endif

// These two leave frames behind that never return: they must not be guarded, the next fiber has the same stack.
#define BARE __attribute__((no_sanitize_address, noinline))

BARE static void leave() { // to the scheduler
	Fiber &f = fibers[now];
#if SANITIZED
	__sanitizer_start_switch_fiber(f.state == DONE ? nullptr : &f.fake, mainStack, mainSize);
#endif
	jump(f.context, scheduler);
#if SANITIZED
	__sanitizer_finish_switch_fiber(f.fake, nullptr, nullptr);
#endif
}

BARE static void enter() { // a fiber begins
#if SANITIZED
	__sanitizer_finish_switch_fiber(nullptr, &mainStack, &mainSize);
#endif
	kernel->run(arguments);
	Fiber &f = fibers[now];
	if (!f.copies.empty()) fail("ends with asynchronous copies that nobody waited for");
	f.state = DONE;
	leave();
	abort();
}

static void resume(int i) {
	now = i;
	threadIdx = fibers[i].index;
#if SANITIZED
	void *fake;
	__sanitizer_start_switch_fiber(&fake, stacks + i * stackSize, stackSize);
#endif
	jump(scheduler, fibers[i].context);
#if SANITIZED
	__sanitizer_finish_switch_fiber(fake, nullptr, nullptr);
#endif
}

[[noreturn]] static void stuck() {
	int n[4] = {};
	std::string kinds;
	for (int i = 0; i < threads; i++) {
		n[fibers[i].state]++;
		if (fibers[i].state == AT_WARP && kinds.find(warps[i / 32].in[i % 32].kind) == std::string::npos)
			kinds += std::string(" ") + warps[i / 32].in[i % 32].kind;
	}
	fail("no thread can go on: %d wait at __syncthreads, %d in a warp (%s ), %d are done", n[AT_BARRIER], n[AT_WARP], kinds.c_str(), n[DONE]);
}

// order permutes 0 … n−1.
static uint64_t seed;
static void order(int *list, int n) {
	for (int i = 0; i < n; i++) list[i] = i;
	for (int i = n - 1; seed && i > 0; i--) {
		seed = seed * 6364136223846793005 + 1442695040888963407;
		int j = (seed >> 33) % (i + 1), t = list[i];
		list[i] = list[j], list[j] = t;
	}
}

static void runBlock() {
	atBarrier = 0;
	for (int i = 0; i < (threads + 31) / 32; i++) warps[i].arrived = 0, warps[i].turn = 0;
	for (int i = 0; i < threads; i++) {
		Fiber &f = fibers[i];
		f.state = READY;
		f.index = {i % blockDim.x, i / blockDim.x % blockDim.y, i / blockDim.x / blockDim.y};
		f.groups.clear();
		f.copies.clear();
		start(f.context, stacks + i * stackSize, stackSize, enter);
	}
	memset(shared, 0xff, sharedSize); // NaN
	for (int done = 0; done < threads;) {
		bool moved = false;
		int warp[32], lane[32];
		order(warp, (threads + 31) / 32);
		order(lane, 32);
		for (int w = 0; w < (threads + 31) / 32; w++) {
			seed = seed ? seed * 6364136223846793005 + 1442695040888963407 : 0;
			bool greedy = !seed || seed >> 63; // in disorder, half of the time, a warp leaves the turn to others wherever it waits
			for (bool again = true; again;) {
				again = false;
				for (int k = 0; k < 32; k++) {
					int i = warp[w] * 32 + lane[k];
					if (i >= threads || fibers[i].state != READY) continue;
					resume(i);
					again = moved = true;
					done += fibers[i].state == DONE;
				}
				again = again && greedy;
			}
		}
		if (!moved) stuck();
	}
}

static std::unordered_map<std::string, Kernel> &registry() {
	static auto *r = new std::unordered_map<std::string, Kernel>;
	return *r;
}

void add(const Kernel &k) { registry().emplace(k.name, k); }

const Kernel *find(const char *name) {
	auto it = registry().find(name);
	return it == registry().end() ? nullptr : &it->second;
}

void launch(const Kernel &k, Dim3 grid, Dim3 block, size_t size, void **params) {
	static std::mutex one;
	std::lock_guard<std::mutex> lock(one);
	if (!stacks) {
		stacks = (char *)mmap(nullptr, 1024 * stackSize, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
		if (stacks == MAP_FAILED) fail("no memory for stacks");
		fibers = new Fiber[1024];
		warps = new Warp[32];
	}
	if (const char *v = getenv("HOSTGPU_ORDER")) seed = strtoull(v, nullptr, 10);
	kernel = &k;
	arguments = params;
	gridDim = grid;
	blockDim = block;
	threads = block.x * block.y * block.z;
	shared = (char *)aligned_alloc(1024, (size + 1023) / 1024 * 1024 + 1024);
#if SANITIZED
	free(shared);
	shared = (char *)malloc(size); // bounds to the byte; 16-byte aligned
#endif
	sharedSize = size;
	for (unsigned z = 0; z < grid.z; z++)
		for (unsigned y = 0; y < grid.y; y++)
			for (unsigned x = 0; x < grid.x; x++) {
				blockIdx = {x, y, z};
				runBlock();
			}
	free(shared);
	kernel = nullptr;
}

char *dynamicShared() { return shared; }

// ---- what threads do together ----

void syncThreads() {
	if (++atBarrier < threads) {
		fibers[now].state = AT_BARRIER;
		leave();
		return;
	}
	atBarrier = 0;
	for (int i = 0; i < threads; i++)
		if (i != now) fibers[i].state = READY;
}

// meet leaves a lane's operand; the last lane does finish(warp) for all. The result is in the buffer that it returns.
template <class F> static unsigned meet(const Operand &mine, F finish) {
	Warp &w = warps[now / 32];
	int lanes = threads - now / 32 * 32 < 32 ? threads - now / 32 * 32 : 32;
	if (lanes < 32) fail("%s in a warp of %d threads", mine.kind, lanes);
	w.in[now % 32] = mine;
	unsigned turn = w.turn & 1;
	if (++w.arrived < 32) {
		fibers[now].state = AT_WARP;
		leave();
		return turn;
	}
	for (int k = 0; k < 32; k++)
		if (strcmp(w.in[k].kind, mine.kind)) fail("lanes of one warp in %s and %s", mine.kind, w.in[k].kind);
	finish(w, turn);
	w.arrived = 0;
	w.turn++;
	for (int k = 0; k < 32; k++)
		if (now / 32 * 32 + k != now) fibers[now / 32 * 32 + k].state = READY;
	return turn;
}

void syncWarp() {
	meet({"__syncwarp", 0, nullptr, {}}, [](Warp &, unsigned) {});
}

const uint64_t *exchange(uint32_t mask, uint64_t mine) {
	if (mask != 0xffffffff) fail("a shuffle in a part of a warp");
	unsigned turn = meet({"shuffle", mine, nullptr, {}}, [](Warp &w, unsigned turn) {
		for (int k = 0; k < 32; k++) w.values[turn][k] = w.in[k].value;
	});
	return warps[now / 32].values[turn];
}

static float half(uint32_t pair, int i) {
	uint32_t u = i ? pair & 0xffff0000 : pair << 16;
	float f;
	memcpy(&f, &u, 4);
	return f;
}

void mma(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
	unsigned turn = meet({"mma", 0, a, {b0, b1}}, [](Warp &w, unsigned turn) {
		float a[16][16], b[16][8];
		for (int l = 0; l < 32; l++) {
			int g = l / 4, t = l % 4;
			for (int e = 0; e < 2; e++) {
				for (int r = 0; r < 4; r++) a[g + r % 2 * 8][2 * t + r / 2 * 8 + e] = half(w.in[l].a[r], e);
				for (int r = 0; r < 2; r++) b[2 * t + r * 8 + e][g] = half(w.in[l].b[r], e);
			}
		}
		for (int i = 0; i < 16; i++) {
			float *c = w.product[turn][i];
			for (int j = 0; j < 8; j++) c[j] = 0;
			for (int k = 0; k < 16; k++)
				for (int j = 0; j < 8; j++) c[j] += a[i][k] * b[k][j];
		}
	});
	const float(*p)[8] = warps[now / 32].product[turn];
	int g = now % 32 / 4, t = now % 4;
	for (int e = 0; e < 4; e++) c[e] += p[g + e / 2 * 8][2 * t + e % 2];
}

// mmaSparse is PTX's mma.sp.m16n8k32 for bfloat16, element by element as the ISA numbers a lane's: a_i, i = 0…7, is one of the two kept ones of
// columns first…first+3 of A, the lower for an even i. Which column, two bits of metadata say. It must be in order, or what comes is undefined.
void mmaSparse(float (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[4], uint32_t e, int selector) {
	if (selector < 0 || selector > 1) fail("mma.sp with selector %d", selector);
	unsigned turn = meet({"mma.sp", (uint64_t)selector << 32 | e, a, {b[0], b[1], b[2], b[3]}}, [selector](Warp &w, unsigned turn) {
		float a[16][32] = {}, b[32][8];
		bool kept[16][32] = {};
		for (int l = 0; l < 32; l++) {
			int group = l / 4, inGroup = l % 4;
			if ((int)(w.in[l].value >> 32) != selector) fail("lanes of one warp in mma.sp with different selectors");
			for (int i = 0, before = -1; i < 8; i++) {
				int row = i / 2 % 2 == 0 ? group : group + 8, first = inGroup * 4 + (i < 4 ? 0 : 16);
				uint32_t metadata = (uint32_t)w.in[group * 4 + selector * 2 + first / 16].value >> (row < 8 ? 0 : 16);
				int place = metadata >> (first % 16 / 4 * 4 + i % 2 * 2) & 3;
				if (i % 2 && place <= before) fail("mma.sp: metadata of row %d, columns %d to %d: places %d and %d", row, first, first + 3, before, place);
				before = place;
				a[row][first + place] = half(w.in[l].a[i / 2], i % 2);
				kept[row][first + place] = true;
			}
			for (int i = 0; i < 8; i++) b[inGroup * 2 + i % 2 + i / 2 * 8][group] = half(w.in[l].b[i / 2], i % 2);
		}
		for (int i = 0; i < 16; i++) {
			float *c = w.product[turn][i];
			for (int j = 0; j < 8; j++) c[j] = 0;
			for (int k = 0; k < 32; k++)
				for (int j = 0; kept[i][k] && j < 8; j++) c[j] += a[i][k] * b[k][j]; // a pruned one is not multiplied: no 0·NaN
		}
	});
	const float(*p)[8] = warps[now / 32].product[turn];
	int g = now % 32 / 4, t = now % 4;
	for (int e = 0; e < 4; e++) c[e] += p[g + e / 2 * 8][2 * t + e % 2];
}

void ldmatrix(uint32_t (&r)[4], const void *p, bool transposed) {
	if ((uintptr_t)p % 16) fail("ldmatrix of a row that is not 16-byte aligned");
	auto pair = [](Warp &w, int i, int l, bool transposed) {
		auto at = [&](int row, int col) { return (uint32_t)((const uint16_t *)w.in[i * 8 + row].value)[col]; };
		int g = l / 4, t = l % 4;
		return transposed ? at(2 * t, g) | at(2 * t + 1, g) << 16 : at(g, 2 * t) | at(g, 2 * t + 1) << 16;
	};
	unsigned turn = meet({transposed ? "ldmatrix.trans" : "ldmatrix", (uint64_t)(uintptr_t)p, nullptr, {}}, [&](Warp &w, unsigned turn) {
		for (int l = 0; l < 32; l++)
			for (int i = 0; i < 4; i++) w.words[turn][l][i] = pair(w, i, l, transposed);
	});
	memcpy(r, warps[now / 32].words[turn][now % 32], sizeof r);
}

void copyAsync(void *dst, const void *src, bool in) {
	if ((uintptr_t)dst % 16 || (in && (uintptr_t)src % 16)) fail("an asynchronous copy that is not 16-byte aligned");
	fibers[now].copies.push_back({dst, src, in});
}

void copyCommit() { fibers[now].groups.push_back(fibers[now].copies.size()); }

void copyWait(int left) {
	Fiber &f = fibers[now];
	if ((int)f.groups.size() <= left) return;
	size_t n = f.groups.size() - left, end = f.groups[n - 1];
	for (size_t i = 0; i < end; i++) {
		if (f.copies[i].in)
			memcpy(f.copies[i].dst, f.copies[i].src, 16);
		else
			memset(f.copies[i].dst, 0, 16);
	}
	f.copies.erase(f.copies.begin(), f.copies.begin() + end);
	f.groups.erase(f.groups.begin(), f.groups.begin() + n);
	for (size_t &g : f.groups) g -= end;
}

// ---- IEEE half ----

float fromF16(uint16_t h) {
	int exp = h >> 10 & 31, frac = h & 1023;
	float f = exp == 0 ? ldexpf(frac, -24) : exp == 31 ? (frac ? NAN : INFINITY) : ldexpf(1024 + frac, exp - 25);
	return h >> 15 ? -f : f;
}

uint16_t toF16(float f) {
	uint16_t sign = signbit(f) ? 0x8000 : 0;
	f = fabsf(f);
	if (f != f) return 0x7fff; // as cvt.rn.f16.f32
	if (f >= 65520) return sign | 0x7c00;
	if (f < 0x1p-14f) return sign | (uint16_t)nearbyintf(ldexpf(f, 24));
	int exp;
	frexpf(f, &exp);
	uint32_t n = (uint32_t)nearbyintf(ldexpf(f, 11 - exp)); // 1024 … 2048
	return sign | (uint16_t)(((exp + 14) << 10) + (n - 1024));
}

} // namespace hostgpu
