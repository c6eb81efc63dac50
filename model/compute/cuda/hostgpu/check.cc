// check.cc runs every kernel on the stand-in against its formula in float64, each tensor in an allocation of exactly its size, so that the
// address sanitizer sees an access beyond it; aligned and not, odd sizes, more elements than threads.
//
//	check PTXDIR <cases                      one a line: see attention(), adapter() and spmm()
//	check PTXDIR KERNEL                      a kernel of faulty.cu: the stand-in must stop it, or its result be wrong
//
// It prints a line per group, and stops at the first difference.
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <fstream>
#include <functional>
#include <iostream>
#include <map>
#include <random>
#include <set>
#include <sstream>
#include <string>
#include <vector>

typedef unsigned long long Pointer;
extern "C" {
int cuInit(unsigned);
int cuDevicePrimaryCtxRetain(void **, int);
int cuCtxSetCurrent(void *);
int cuMemAlloc_v2(Pointer *, size_t);
int cuMemFree_v2(Pointer);
int cuMemcpyHtoD_v2(Pointer, const void *, size_t);
int cuMemcpyDtoH_v2(void *, Pointer, size_t);
int cuModuleLoadData(void **, const void *);
int cuModuleGetFunction(void **, void *, const char *);
int cuFuncSetAttribute(void *, int, int);
int cuLaunchKernel(void *, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, void *, void **, void **);
int cuStreamDestroy_v2(void *);
int cublasCreate_v2(void **);
int cublasGemmEx(void *, int, int, int, int, int, const float *, const void *, int, int, const void *, int, int, const float *, void *, int, int, int, int);
}

[[noreturn]] static void die(const std::string &why) {
	fflush(stdout);
	fprintf(stderr, "check: %s\n", why.c_str());
	exit(1);
}
static void must(int rc, const std::string &what) {
	if (rc) die(what + ": error " + std::to_string(rc));
}

enum Type { F32, BF16, F16 };
static const char *const names[] = {"f32", "bf16", "f16"};
static int size(Type t) { return t == F32 ? 4 : 2; }

// value and bits are the formats' definitions, by powers of two.
static double value(Type t, uint32_t u) {
	if (t == F32) {
		float f;
		return memcpy(&f, &u, 4), f;
	}
	int frac = t == BF16 ? 7 : 10, bias = t == BF16 ? 127 : 15, exp = (u & 0x7fff) >> frac, m = u & ((1 << frac) - 1);
	double x = exp == 2 * bias + 1 ? (m ? NAN : INFINITY) : exp == 0 ? ldexp(m, 1 - bias - frac) : ldexp(m + (1 << frac), exp - bias - frac);
	return u >> 15 ? -x : x;
}
static uint32_t bits(Type t, double x) {
	if (t == F32) {
		float f = x;
		uint32_t u;
		return memcpy(&u, &f, 4), u;
	}
	int frac = t == BF16 ? 7 : 10, bias = t == BF16 ? 127 : 15, exp;
	uint32_t sign = signbit(x) ? 0x8000 : 0;
	x = fabs(x);
	if (x == 0) return sign;
	frexp(x, &exp);
	int e = std::max(exp - 1, 1 - bias);
	double n = nearbyint(ldexp(x, frac - e));
	if (n >= (2 << frac)) n /= 2, e++;
	if (e > bias) return sign | (uint32_t)(2 * bias + 1) << frac;
	return sign | (n < (1 << frac) ? (uint32_t)n : ((uint32_t)(e + bias) << frac) + (uint32_t)n - (1 << frac));
}

static std::mt19937_64 rng(1);
static double normal() { return std::normal_distribution<double>()(rng); }
static int below(int n) { return rng() % n; }

// Tensor is device memory of exactly its elements; off elements after the start of the allocation.
struct Tensor {
	Type t;
	size_t n, off;
	Pointer base = 0;
	std::vector<double> v; // what was uploaded

	Tensor(Type t, size_t n, size_t off = 0) : t(t), n(n), off(off) { must(cuMemAlloc_v2(&base, std::max<size_t>(1, (n + off) * size(t))), "alloc"); }
	Tensor(const Tensor &) = delete;
	~Tensor() { cuMemFree_v2(base); }
	Pointer at() const { return base + off * size(t); }
	Tensor &set(const std::function<double(size_t)> &f) {
		std::vector<uint8_t> raw(n * size(t));
		v.resize(n);
		for (size_t i = 0; i < n; i++) {
			uint32_t u = bits(t, f(i));
			v[i] = value(t, u);
			memcpy(&raw[i * size(t)], &u, size(t));
		}
		must(cuMemcpyHtoD_v2(at(), raw.data(), raw.size()), "upload");
		return *this;
	}
	Tensor &random(double scale = 1) {
		return set([=](size_t) { return scale * normal(); });
	}
	std::vector<double> get() const {
		std::vector<uint8_t> raw(n * size(t));
		must(cuMemcpyDtoH_v2(raw.data(), at(), raw.size()), "download");
		std::vector<double> x(n);
		for (size_t i = 0; i < n; i++) {
			uint32_t u = 0;
			memcpy(&u, &raw[i * size(t)], size(t));
			x[i] = value(t, u);
		}
		return x;
	}
};

// Raw is device memory of integers.
template <class E> struct Raw {
	Pointer p;
	std::vector<E> v;
	Raw(const std::vector<E> &v) : v(v) {
		must(cuMemAlloc_v2(&p, std::max<size_t>(1, v.size() * sizeof(E))), "alloc");
		must(cuMemcpyHtoD_v2(p, v.data(), v.size() * sizeof(E)), "upload");
	}
	Raw(const Raw &) = delete;
	~Raw() { cuMemFree_v2(p); }
};

// near checks ‖got − want‖ ≤ tolerance·‖want‖ where both are finite, and that they are infinite or NaN at the same places.
static void near(const std::string &what, const Tensor &t, const std::vector<double> &want, double tolerance) {
	std::vector<double> got = t.get();
	double d = 0, n = 0;
	for (size_t i = 0; i < got.size(); i++) {
		if (!std::isfinite(want[i])) {
			if (std::isnan(want[i]) ? !std::isnan(got[i]) : got[i] != want[i]) die(what + ": element " + std::to_string(i) + " is " + std::to_string(got[i]));
			continue;
		}
		d += (got[i] - want[i]) * (got[i] - want[i]);
		n += want[i] * want[i];
	}
	if (!(sqrt(d) <= tolerance * sqrt(n))) {
		char text[100];
		snprintf(text, sizeof text, ": relative error %.3g, tolerance %.3g", sqrt(d / n), tolerance);
		die(what + text);
	}
}
// A bfloat16 is right to 2⁻⁸ at worst, where a tensor has one element.
static double tolerance(Type t) { return t == F32 ? 1e-6 : 4e-3; }

// ---- launches ----

static std::map<std::string, void *> modules;
static std::set<std::string> ran, all;

static void load(const std::string &dir, const char *name) {
	std::ifstream f(dir + "/" + name + ".ptx");
	std::stringstream s;
	s << f.rdbuf();
	std::string text = s.str();
	must(cuModuleLoadData(&modules[name], text.c_str()), std::string("module ") + name);
	for (size_t at = 0; (at = text.find(".entry ", at)) != std::string::npos; at++) all.insert(text.substr(at + 7, text.find('(', at) - at - 7));
}

static uint64_t slot(const Tensor &t) { return t.at(); }
template <class E> uint64_t slot(const Raw<E> &r) { return r.p; }
static uint64_t slot(float f) {
	uint32_t u;
	memcpy(&u, &f, 4);
	return u;
}
static uint64_t slot(int64_t i) { return i; }
static uint64_t slot(int i) { return (uint32_t)i; }
static uint64_t slot(uint64_t i) { return i; }
static uint64_t slot(unsigned long long i) { return i; }
static uint64_t slot(std::nullptr_t) { return 0; }

struct Shape {
	unsigned x, y = 1, z = 1, threads = 256, shared = 0;
};

template <class... A> void launch(const char *module, const std::string &name, Shape s, const A &...args) {
	void *f;
	must(cuModuleGetFunction(&f, modules[module], name.c_str()), name);
	must(cuFuncSetAttribute(f, 8, std::max(49152u, s.shared)), name);
	uint64_t slots[] = {slot(args)...};
	void *p[sizeof...(args)];
	for (size_t i = 0; i < sizeof...(args); i++) p[i] = &slots[i];
	must(cuLaunchKernel(f, s.x, s.y, s.z, s.threads, 1, 1, s.shared, nullptr, p, nullptr), name);
	ran.insert(name);
}
static Shape sweep(size_t n) { return {(unsigned)std::min<size_t>(3, (n + 2047) / 2048)}; }
static std::string typed(const char *name, Type t) { return std::string(name) + "_" + names[t]; }
static std::string typed(const char *name, Type t, Type s) { return typed(name, t) + "_" + names[s]; }

// ---- the kernels ----

static const Type activations[] = {F32, BF16}, storage[] = {F32, BF16, F16};

static double sigmoid(double x) { return 1 / (1 + exp(-x)); }

static void elementwise() {
	for (Type t : activations)
		for (int64_t n : {1, 7, 64, 2049, 20011})
			for (size_t off : {0, 1, 8}) {
				std::string what = std::string(names[t]) + " n " + std::to_string(n) + " offset " + std::to_string(off);
				std::vector<double> want(n), also(n);
				Tensor x(t, n, off), y(t, n, off), u(t, n, off), dg(t, n, off), du(t, n, off);
				x.random(), y.random(), u.random();
				launch("elementwise", typed("silu", t), sweep(n), dg, x, u, n);
				for (int64_t i = 0; i < n; i++) want[i] = x.v[i] * sigmoid(x.v[i]) * u.v[i];
				near("silu " + what, dg, want, tolerance(t));
				launch("elementwise", typed("silu_back", t), sweep(n), dg, du, y, x, u, n);
				for (int64_t i = 0; i < n; i++) {
					double s = sigmoid(x.v[i]);
					want[i] = y.v[i] * u.v[i] * s * (1 + x.v[i] * (1 - s)), also[i] = y.v[i] * x.v[i] * s;
				}
				near("dg " + what, dg, want, tolerance(t));
				near("du " + what, du, also, tolerance(t));
				launch("elementwise", typed("add", t), sweep(n), y, x, n);
				for (int64_t i = 0; i < n; i++) want[i] = y.v[i] + x.v[i];
				near("add " + what, y, want, tolerance(t));
				launch("elementwise", typed("fill", t), sweep(n), y, n, 2.5f);
				near("fill " + what, y, std::vector<double>(n, 2.5), 0);
				int64_t rows = 3, cols = n;
				Tensor m(t, rows * cols, off), bias(F32, cols);
				m.random(), bias.random();
				launch("elementwise", typed("addbias", t), sweep(rows * cols), m, bias, rows, cols);
				want.assign(rows * cols, 0);
				for (int64_t i = 0; i < rows * cols; i++) want[i] = m.v[i] + bias.v[i % cols];
				near("addbias " + what, m, want, tolerance(t));
				Raw<int> ids({5, -3, 70000});
				m.random();
				launch("elementwise", typed("dropout", t), sweep(rows * cols), m, m, ids, rows, cols, 77ull, (uint64_t)(0.3 * (1 << 24)), (float)(1 / 0.7));
				for (int64_t i = 0; i < rows * cols; i++) {
					uint64_t z = 77 + (((uint64_t)(uint32_t)ids.v[i / cols] << 32) + i % cols + 1) * 0x9E3779B97F4A7C15ull;
					z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9ull, z = (z ^ z >> 27) * 0x94D049BB133111EBull, z ^= z >> 31;
					want[i] = (z >> 40) / (double)(1 << 24) < 0.3 - 1e-7 ? 0 : m.v[i] / 0.7;
				}
				near("dropout " + what, m, want, tolerance(t));
			}
	for (Type d : storage)
		for (Type s : storage)
			for (size_t off : {0, 3}) {
				if (d == s) continue;
				Tensor dst(d, 5003, off), src(s, 5003, off);
				src.random(3);
				launch("elementwise", typed("copy", d, s), sweep(src.n), dst, src, (int64_t)src.n);
				std::vector<double> want(src.n);
				for (size_t i = 0; i < src.n; i++) want[i] = value(d, bits(d, src.v[i]));
				near(typed("copy", d, s), dst, want, 0);
			}
}

static void rows() {
	for (Type t : activations)
		for (int64_t c : {1, 33, 256, 600})
			for (size_t off : {0, 1}) {
				Raw<int> pick({6, -1, 0, 3});
				for (Type s : storage) {
					Tensor dst(t, 4 * c, off), table(s, 7 * c, off);
					table.random();
					launch("rows", typed("gather", t, s), {4}, dst, table, pick, (int64_t)4, c);
					std::vector<double> want(4 * c);
					for (int64_t i = 0; i < 4 * c; i++) want[i] = pick.v[i / c] < 0 ? 0 : value(t, bits(t, table.v[pick.v[i / c] * c + i % c]));
					near(typed("gather", t, s), dst, want, 0);
				}
				Tensor dst(t, 7 * c, off), src(t, 4 * c, off);
				dst.random(), src.random();
				launch("rows", typed("scatter", t), {4}, dst, src, pick, (int64_t)4, c);
				std::vector<double> want = dst.v;
				for (int64_t i = 0; i < 4 * c; i++)
					if (pick.v[i / c] >= 0) want[pick.v[i / c] * c + i % c] = src.v[i];
				near(typed("scatter", t), dst, want, 0);
			}
	for (Type t : activations)
		for (int half : {1, 3, 16, 64}) {
			int heads = 5;
			Raw<int> pos({9, 0, 4});
			Tensor x(t, 3 * heads * 2 * half), cos_(F32, 10 * half), sin_(F32, 10 * half);
			x.random();
			cos_.set([&](size_t i) { return cos(i / half * pow(0.1, i % half)); });
			sin_.set([&](size_t i) { return sin(i / half * pow(0.1, i % half)); });
			launch("rows", typed("rope", t), {3}, x, cos_, sin_, pos, (int64_t)3, heads, half, -1.f);
			std::vector<double> want(x.n);
			for (int r = 0; r < 3; r++)
				for (int h = 0; h < heads; h++)
					for (int j = 0; j < half; j++) {
						size_t a = ((size_t)r * heads + h) * 2 * half + j, b = a + half, k = pos.v[r] * half + j;
						want[a] = x.v[a] * cos_.v[k] + x.v[b] * sin_.v[k], want[b] = x.v[b] * cos_.v[k] - x.v[a] * sin_.v[k];
					}
			near(typed("rope", t), x, want, tolerance(t));
		}
}

static void norms() {
	for (Type t : activations)
		for (int64_t c : {1, 37, 256, 2600})
			for (size_t off : {0, 1}) {
				const int n = 3;
				Tensor x(t, n * c, off), y(t, n * c, off), dy(t, n * c, off), dx(t, n * c, off), w(F32, c), rstd(F32, n);
				x.random(), dy.random(), w.random(), dx.random();
				std::vector<double> want(n * c), back(n * c), r(n);
				for (int i = 0; i < n; i++) {
					double s = 0, g = 0;
					for (int64_t j = 0; j < c; j++) s += x.v[i * c + j] * x.v[i * c + j], g += dy.v[i * c + j] * w.v[j] * x.v[i * c + j];
					r[i] = 1 / sqrt(s / c + 1e-3);
					for (int64_t k = i * c; k < (i + 1) * c; k++) {
						want[k] = x.v[k] * r[i] * w.v[k - i * c];
						back[k] = dx.v[k] + r[i] * (dy.v[k] * w.v[k - i * c] - x.v[k] * r[i] * r[i] * g / c);
					}
				}
				launch("norm", typed("rmsnorm", t), {n}, y, rstd, x, w, (int64_t)n, c, 1e-3f);
				near(typed("rmsnorm", t), y, want, tolerance(t));
				near("rstd", rstd, r, 1e-6);
				launch("norm", typed("rmsnorm_back", t), {n}, dx, dy, x, w, rstd, (int64_t)n, c, 1.f);
				near(typed("rmsnorm_back", t), dx, back, tolerance(t));
			}
}

static void losses() {
	for (Type t : activations)
		for (int64_t v : {1, 9, 1000, 8003})
			for (size_t off : {0, 1}) {
				const int n = 2;
				Tensor x(t, n * v, off), loss(F32, n);
				x.random(5);
				Raw<int> target({below(v), below(v)});
				std::vector<double> want(n), grad(n * v);
				for (int i = 0; i < n; i++) {
					double m = -INFINITY, s = 0;
					for (int64_t k = i * v; k < (i + 1) * v; k++) m = std::max(m, x.v[k]);
					for (int64_t k = i * v; k < (i + 1) * v; k++) s += exp(x.v[k] - m);
					for (int64_t k = i * v; k < (i + 1) * v; k++) grad[k] = exp(x.v[k] - m) / s - (k - i * v == target.v[i]);
					want[i] = m + log(s) - x.v[i * v + target.v[i]];
				}
				launch("loss", typed("crossentropy", t), {n, 1, 1, 512}, loss, x, target, (int64_t)n, v, 0);
				near("loss", loss, want, 1e-6);
				launch("loss", typed("crossentropy", t), {n, 1, 1, 512}, loss, x, target, (int64_t)n, v, 1);
				near("loss", loss, want, 1e-6);
				near(typed("crossentropy", t), x, grad, tolerance(t));
			}
}

static void updates() {
	for (int64_t n : {1, 10007})
		for (size_t off : {0, 1}) {
			Tensor p(F32, n, off), g(F32, n, off), m(F32, n, off), v(F32, n, off);
			p.random(), g.random(), m.random(), v.set([](size_t) { return normal() * normal() + 4; });
			launch("update", "adamw_f32", sweep(n), p, g, m, v, n, 1e-2f, .9f, .99f, 1e-6f, .1f, .1f, .01f, .25f);
			std::vector<double> wp(n), wm(n), wv(n);
			for (int64_t i = 0; i < n; i++) {
				double x = .25 * g.v[i];
				wm[i] = .9f * m.v[i] + (1 - .9f) * x, wv[i] = .99f * v.v[i] + (1 - .99f) * x * x;
				wp[i] = p.v[i] * (1 - 1e-2f * .1f) - 1e-2f * (wm[i] / .1f) / (sqrt(wv[i] / .01f) + 1e-6f);
			}
			near("p", p, wp, 1e-6), near("m", m, wm, 1e-6), near("v", v, wv, 1e-6);
			std::vector<double> sums(513);
			Raw<double> part(std::vector<double>(512)), sum({0.});
			launch("update", "sumsquares_f32", {512}, part, g, n);
			launch("update", "sumsquares_final", {1}, sum, part);
			double got, want = 0;
			must(cuMemcpyDtoH_v2(&got, sum.p, 8), "download");
			for (double x : g.v) want += x * x;
			if (!(fabs(got - want) <= 1e-12 * want)) die("sumsquares");
		}
}

static void products() {
	for (auto s : std::vector<std::vector<int>>{{1, 1, 1}, {3, 70, 5}, {65, 64, 33}, {130, 2, 16}, {4, 5, 0}})
		for (int v = 0; v < 12; v++) {
			int64_t m = s[0], n = s[1], k = s[2];
			int ta = v & 1, tb = v >> 1 & 1;
			Type ct = activations[v % 2], at = storage[v % 3], bt = storage[(v + 1 + v / 3) % 3];
			Tensor c(ct, m * n), a(at, m * k), b(bt, k * n);
			a.random(), b.random(), c.random();
			std::vector<double> want(m * n);
			for (int64_t i = 0; i < m; i++)
				for (int64_t j = 0; j < n; j++) {
					double sum = 0;
					for (int64_t p = 0; p < k; p++) sum += a.v[ta ? p * m + i : i * k + p] * b.v[tb ? j * k + p : p * n + j];
					want[i * n + j] = 1.25 * sum + (v % 3 ? -0.5 * c.v[i * n + j] : 0);
				}
			launch("gemm", "gemm_any", {(unsigned)(n + 63) / 64, (unsigned)(m + 63) / 64}, c, (int)ct, 1.25f, a, (int)at, ta, b, (int)bt, tb,
				v % 3 ? -0.5f : 0.f, m, n, k);
			near("gemm_any", c, want, tolerance(ct));
		}
}

// ---- packed weights ----

struct Pattern {
	int keep, group;
	double density;
};

static void packed() {
	const Pattern patterns[] = {{2, 4, 0}, {1, 4, 0}, {4, 8, 0}, {0, 0, .5}, {0, 0, .05}, {0, 0, 1}, {0, 0, 0}};
	int which = 0;
	for (auto s : std::vector<std::vector<int>>{{1, 64, 1}, {5, 80, 16}, {130, 264, 3}, {7, 333, 20}, {33, 520, 64}, {3, 15, 2}, {2, 512, 0}, {140, 40, 256}})
		for (Pattern p : patterns)
			for (bool dense : {false, true}) {
				int64_t out = s[0], in = s[1];
				int r = s[2];
				if ((p.group && (in % p.group || 256 % p.group)) || (dense && p.density != 1)) continue;
				int64_t words = (in + 63) / 64, blocks = (in + 255) / 256;
				std::vector<uint64_t> mask(out * words);
				std::vector<uint32_t> starts;
				std::vector<char> kept(out * in);
				std::vector<int64_t> where;
				for (int64_t i = 0; i < out; i++)
					for (int64_t j = 0; j < in; j++) {
						if (j % 256 == 0) starts.push_back(where.size());
						if (p.group && j % p.group == 0)
							for (int k = 0; k < p.keep;) {
								char &x = kept[i * in + j + below(p.group)];
								if (!x) x = 1, k++;
							}
						if (!p.group) kept[i * in + j] = dense || std::uniform_real_distribution<double>()(rng) < p.density;
						if (!kept[i * in + j]) continue;
						mask[i * words + j / 64] |= 1ull << j % 64;
						where.push_back(i * in + j);
					}
				starts.push_back(where.size());
				Raw<uint64_t> bits_(mask);
				Raw<uint32_t> starts_(starts);
				Tensor a(F32, r * in), b(F32, out * r);
				a.random(), b.random();
				for (Type t : activations) {
					Type st = storage[which++ % 3];
					size_t off = which % 5 == 0;
					Tensor dst(t, out * in, off), v(st, where.size(), off);
					v.random();
					std::vector<double> want(out * in, 0);
					for (size_t k = 0; k < where.size(); k++) {
						double sum = v.v[k];
						int64_t i = where[k] / in, j = where[k] % in;
						for (int q = 0; q < r; q++) sum += .75 * b.v[i * r + q] * a.v[q * in + j];
						want[where[k]] = sum;
					}
					launch("merge", typed("merge", t, st), {(unsigned)blocks, (unsigned)(out + 127) / 128}, dst, v, dense ? 0ull : bits_.p,
						p.group || dense ? 0ull : starts_.p, b, a, out, in, r, .75f, p.keep, p.group);
					near(typed("merge", t, st), dst, want, tolerance(t));
					std::vector<double> got = dst.get();
					for (int64_t k = 0; k < out * in; k++)
						if (!kept[k] && (got[k] != 0 || signbit(got[k]))) die("merge: a pruned position is not +0");
					if (dense) continue;
					dst.random();
					launch("merge", typed("mask", t), sweep(out * in), dst, bits_, out, in);
					for (int64_t k = 0; k < out * in; k++) want[k] = kept[k] ? dst.v[k] : 0;
					near(typed("mask", t), dst, want, 0);
				}
			}
}

// ---- attention ----

// attention reads a case: type B Tq Tk Hq Hkv D window layout offset, and its four launches: module name x y z threads shared.
static void attention(const std::string &line) {
	std::istringstream in(line);
	std::string type;
	int B, Tq, Tk, Hq, Hkv, D, window, layout, off;
	in >> type >> B >> Tq >> Tk >> Hq >> Hkv >> D >> window >> layout >> off;
	std::string module[4], name[4];
	Shape shape[4];
	for (int i = 0; i < 4; i++) in >> module[i] >> name[i] >> shape[i].x >> shape[i].y >> shape[i].z >> shape[i].threads >> shape[i].shared;
	if (!in) die("a case that is not complete: " + line);
	Type t = type == "bf16" ? BF16 : F32;
	size_t nq = (size_t)B * Tq * Hq * D, nk = (size_t)B * Tk * Hkv * D, nl = (size_t)B * Hq * Tq;
	Tensor y(t, nq, off), q(t, nq, off), dy(t, nq, off), dq(t, nq, off), k(t, nk, off), v(t, nk, off), dk(t, nk, off), dv(t, nk, off), lse(F32, nl), delta(F32, nl);
	q.random(), k.random(), v.random(), dy.random();
	std::vector<int> qp(B * Tq), qd(B * Tq), kp(B * Tk), kd(B * Tk);
	for (int b = 0; b < B; b++)
		for (int j = 0, doc = 0, pos = 0; j < Tk; j++, pos++) {
			if (layout == 1 && j > 0 && below(Tk / 3 + 1) == 0) doc++, pos = 0; // documents in a row
			bool pad = layout == 2 && (j > Tk * 3 / 4 || j == Tk / 3);
			kp[b * Tk + j] = pos, kd[b * Tk + j] = pad ? -1 : doc;
			if (j >= Tk - Tq) qp[b * Tq + j - Tk + Tq] = pos, qd[b * Tq + j - Tk + Tq] = pad ? -1 : doc;
		}
	Raw<int> qpos(qp), qdoc(qd), kpos(kp), kdoc(kd);
	float scale = 1.3 / sqrt(D);
	std::vector<double> wy(nq), wl(nl), wq(nq), wk(nk), wv(nk);
	for (int b = 0; b < B; b++)
		for (int h = 0; h < Hq; h++)
			for (int i = 0; i < Tq; i++) {
				size_t a = (((size_t)b * Tq + i) * Hq + h) * D, n = b * Tq + i;
				auto at = [&](int j) { return (((size_t)b * Tk + j) * Hkv + (size_t)h * Hkv / Hq) * D; };
				std::vector<double> p(Tk, -INFINITY), dp(Tk, 0);
				double m = -INFINITY, sum = 0, mean = 0;
				for (int j = 0; j <= Tk - Tq + i; j++) {
					int far = qp[n] - kp[b * Tk + j];
					if (qd[n] < 0 || kd[b * Tk + j] != qd[n] || far < 0 || (window && far >= window)) continue;
					p[j] = 0;
					for (int d = 0; d < D; d++) p[j] += scale * q.v[a + d] * k.v[at(j) + d], dp[j] += dy.v[a + d] * v.v[at(j) + d];
					m = std::max(m, p[j]);
				}
				for (double &x : p) sum += x = x == -INFINITY ? 0 : exp(x - m);
				wl[((size_t)b * Hq + h) * Tq + i] = m + log(sum);
				for (int j = 0; j < Tk; j++) mean += (p[j] /= sum > 0 ? sum : 1) * dp[j];
				for (int j = 0; j < Tk; j++)
					for (int d = 0; p[j] != 0 && d < D; d++) {
						double ds = scale * p[j] * (dp[j] - mean);
						wy[a + d] += p[j] * v.v[at(j) + d], wv[at(j) + d] += p[j] * dy.v[a + d];
						wq[a + d] += ds * k.v[at(j) + d], wk[at(j) + d] += ds * q.v[a + d];
					}
			}
	double tol = t == F32 ? 2e-6 : 5e-3;
#define TAIL qpos, kpos, qdoc, kdoc, Tq, Tk, Hq, Hkv, D, scale, window
	launch(module[0].c_str(), name[0], shape[0], y, lse, q, k, v, TAIL);
	near("y of " + line, y, wy, tol);
	near("lse of " + line, lse, wl, 2e-6);
	launch(module[1].c_str(), name[1], shape[1], delta, dy, y, (int64_t)B, Tq, Hq, D);
	launch(module[2].c_str(), name[2], shape[2], dq, dy, lse, delta, q, k, v, TAIL);
	near("dq of " + line, dq, wq, tol);
	launch(module[3].c_str(), name[3], shape[3], dk, dv, dy, lse, delta, q, k, v, TAIL);
	near("dk of " + line, dk, wk, tol);
	near("dv of " + line, dv, wv, tol);
}

// adapter reads a case: "adapter" out in r dense, the launch: module name x y z threads shared, R stripe partA partB.
static void adapter(const std::string &line) {
	std::istringstream is(line);
	std::string word, module, name;
	int64_t out, in, stripe, nA, nB;
	int r, dense, R;
	Shape s;
	is >> word >> out >> in >> r >> dense >> module >> name >> s.x >> s.y >> s.z >> s.threads >> s.shared >> R >> stripe >> nA >> nB;
	if (!is) die("a case that is not complete: " + line);
	int64_t words = (in + 63) / 64;
	std::vector<uint64_t> mask(out * words);
	for (int64_t i = 0; i < out; i++)
		for (int64_t j = 0; j < in; j++) mask[i * words + j / 64] |= (uint64_t)(dense || rng() % 2) << j % 64;
	Raw<uint64_t> bits_(mask);
	Tensor g(BF16, out * in), a(F32, r * in), b(F32, out * r), da(F32, r * in), db(F32, out * r), partA(F32, nA), partB(F32, nB);
	g.random(), da.random(), db.random();
	a.set([](size_t) { return value(BF16, bits(BF16, normal())); }), b.set([](size_t) { return value(BF16, bits(BF16, normal())); });
	std::vector<double> wa = da.v, wb = db.v;
	for (int64_t i = 0; i < out; i++)
		for (int64_t j = 0; j < in; j++)
			for (int p = 0; (mask[i * words + j / 64] >> j % 64 & 1) && p < r; p++) {
				wa[p * in + j] += .75 * b.v[i * r + p] * g.v[i * in + j];
				wb[i * r + p] += .75 * g.v[i * in + j] * a.v[p * in + j];
			}
	launch(module.c_str(), name, s, partA, partB, g, dense ? 0ull : bits_.p, b, a, out, in, r, stripe);
	launch("adapter", "adapter_sum", sweep(r * (in + out)), da, db, partA, partB, out, in, r, R, (int)s.y, (int)s.x, .75f);
	near("da of " + line, da, wa, 1e-6);
	near("db of " + line, db, wb, 1e-6);
}

// ---- 2:4 ----

// Kept is two of each four neighbours of a row, rows of in.
static std::vector<char> twoOfFour(int64_t out, int64_t in) {
	std::vector<char> kept(out * in);
	for (int64_t k = 0; k < out * in; k += 4) {
		int i = below(4), j = (i + 1 + below(3)) % 4;
		kept[k + i] = kept[k + j] = 1;
	}
	return kept;
}

// sparseCores checks the stand-in's mma.sp alone: C [16,8] += A [16,32]·B [32,8] by a plain loop, the operands dealt to the lanes as the PTX ISA
// says of m16n8k32 with bfloat16: A of row `group` (a0, a1, a4, a5) or group + 8, columns 4·inGroup… (a0…a3) or 16 more; metadata of a lane pair
// that the selector names, 16 columns each, row + 8 in the high half. What the other pair holds must not matter.
static void sparseCores() {
	for (int trial = 0; trial < 40; trial++) {
		int selector = trial % 2;
		std::vector<char> kept = twoOfFour(16, 32);
		std::vector<double> A(16 * 32), B(32 * 8), C(16 * 8);
		auto rounded = [] { return value(BF16, bits(BF16, normal())); };
		for (int k = 0; k < 16 * 32; k++) A[k] = kept[k] ? rounded() : 0;
		for (double &x : B) x = rounded();
		for (double &x : C) x = value(F32, bits(F32, normal()));
		auto place = [&](int row, int chunk, int which) { // of the lower or the higher kept one of columns 4·chunk…
			for (int k = 0; k < 4; k++)
				if (kept[row * 32 + chunk * 4 + k] && which-- == 0) return k;
			die("not 2:4");
		};
		std::vector<uint32_t> a(128), b(128), e(32);
		Tensor c(F32, 128);
		std::vector<double> lanes(128), want(128);
		for (int l = 0; l < 32; l++) {
			int group = l >> 2, inGroup = l & 3;
			for (int i = 0; i < 8; i++) {
				int row = i < 2 || (i >= 4 && i < 6) ? group : group + 8, chunk = inGroup + (i < 4 ? 0 : 4);
				a[4 * l + i / 2] |= bits(BF16, A[row * 32 + chunk * 4 + place(row, chunk, i % 2)]) << i % 2 * 16;
				b[4 * l + i / 2] |= bits(BF16, B[(inGroup * 2 + (i & 1) + i / 2 * 8) * 8 + group]) << i % 2 * 16;
			}
			for (int k = 0; k < 4; k++) {
				int row = k < 2 ? group : group + 8, col = inGroup * 2 + (k & 1);
				lanes[4 * l + k] = want[4 * l + k] = C[row * 8 + col];
				for (int p = 0; p < 32; p++) want[4 * l + k] += A[row * 32 + p] * B[p * 8 + col];
			}
			e[l] = rng();
			if (inGroup / 2 != selector) continue;
			e[l] = 0;
			for (int k = 0; k < 16; k++) e[l] |= (uint32_t)place(group + k / 8 * 8, inGroup % 2 * 4 + k % 8 / 2, k % 2) << 2 * k;
		}
		c.set([&](size_t k) { return lanes[k]; });
		Raw<uint32_t> ra(a), rb(b), re(e);
		std::string name = selector ? "mma_sp_1" : "mma_sp_0", text = ".version 7.8\n.address_size 64\n.entry " + name + "(.param .u64 c, .param .u64 a, .param .u64 b, .param .u64 e)\n";
		must(cuModuleLoadData(&modules[name], text.c_str()), name);
		launch(name.c_str(), name, {1, 1, 1, 32}, c, ra, rb, re);
		near(name, c, want, 1e-6);
	}
}

// spmm reads a case: "spmm" n out in r, the type of W's values and offset (of values and of y), the size of W̃ in bytes, and two launches: module
// name x y z threads shared. compress is compared bit by bit with merge, spmm with the product of what it reads in float64.
static void spmm(const std::string &line) {
	std::istringstream is(line);
	std::string word, type, module[2], name[2];
	int64_t n, out, in, bytes;
	int r, off;
	Shape s[2];
	is >> word >> n >> out >> in >> r >> type >> off >> bytes;
	for (int i = 0; i < 2; i++) is >> module[i] >> name[i] >> s[i].x >> s[i].y >> s[i].z >> s[i].threads >> s[i].shared;
	if (!is) die("a case that is not complete: " + line);
	Type st = type == "f32" ? F32 : type == "bf16" ? BF16 : F16;
	std::vector<char> kept = twoOfFour(out, in);
	std::vector<uint64_t> mask(out * in / 64);
	for (int64_t k = 0; k < out * in; k++) mask[k / 64] |= (uint64_t)kept[k] << k % 64;
	Raw<uint64_t> bits_(mask);
	Tensor values(st, out * in / 2, off), a(F32, r * in), b(F32, out * r), dense(BF16, out * in), w(BF16, bytes / 2);
	values.random(), a.random(), b.random();
	launch("merge", "merge_bf16_" + type, {(unsigned)(in + 255) / 256, (unsigned)(out + 127) / 128}, dense, values, bits_, nullptr, b, a, out, in, r, .75f, 2, 4);
	launch(module[0].c_str(), name[0], s[0], w, values, bits_, b, a, out, in, r, .75f);
	std::vector<uint16_t> raw(bytes / 2), plain(out * in), got((out + 15) / 16 * 16 * in);
	must(cuMemcpyDtoH_v2(raw.data(), w.at(), bytes), "download");
	must(cuMemcpyDtoH_v2(plain.data(), dense.at(), 2 * plain.size()), "download");
	int64_t tiles = in / 64;
	if (bytes != (out + 15) / 16 * tiles * 1152) die("W̃ of " + line + " has another size");
	for (int64_t t = 0; t < (int64_t)(got.size() / 1024); t++) // as the lanes of two mma.sp hold it
		for (int l = 0; l < 32; l++)
			for (int i = 0; i < 16; i++) {
				int row = i / 2 % 2 * 8 + l / 4, first = i / 8 * 32 + i % 8 / 4 * 16 + l % 4 * 4; // of the 64
				const uint16_t *tile = &raw[t * 576];
				int place = tile[512 + 2 * (l / 4 * 4 + first / 16) + row / 8] >> (first % 16 / 4 * 4 + i % 2 * 2) & 3;
				got[(t / tiles * 16 + row) * in + t % tiles * 64 + first + place] |= tile[i / 8 * 256 + l * 8 + i % 8];
			}
	for (int64_t k = 0; k < (int64_t)got.size(); k++)
		if (got[k] != (k < out * in ? plain[k] : 0)) die("compress: W̃ of " + line + " is not merge's at row " + std::to_string(k / in) + ", input " + std::to_string(k % in));
	Tensor x(BF16, n * in), y(BF16, n * out, off);
	x.random();
	for (float beta : {0.f, 1.f, -.5f}) {
		std::vector<double> want(n * out);
		if (beta == 0) y.set([](size_t) { return NAN; }); else y.random();
		for (int64_t i = 0; i < n; i++)
			for (int64_t j = 0; j < out; j++) {
				double sum = beta == 0 ? 0 : beta * y.v[i * out + j];
				for (int64_t k = 0; k < in; k++) sum += x.v[i * in + k] * value(BF16, plain[j * in + k]);
				want[i * out + j] = sum;
			}
		launch(module[1].c_str(), name[1], s[1], y, x, w, n, out, in, beta);
		near("y of " + line, y, want, tolerance(BF16));
	}
}

// ---- what must be refused ----

static void refused(const char *what, int rc) {
	if (rc == 0) die(std::string(what) + " is accepted");
}

static void refusals() {
	void *f, *none;
	must(cuModuleGetFunction(&f, modules["elementwise"], "fill_f32"), "fill_f32");
	refused("a kernel that does not exist", cuModuleGetFunction(&none, modules["elementwise"], "fill_f64"));
	refused("a kernel of another module", cuModuleGetFunction(&none, modules["elementwise"], "rope_f32"));
	refused("a module that is no PTX", cuModuleLoadData(&none, "no PTX"));
	Tensor x(F32, 10);
	uint64_t slots[] = {x.at(), 10, slot(1.f)};
	void *p[] = {&slots[0], &slots[1], &slots[2]};
	refused("a grid of no blocks", cuLaunchKernel(f, 0, 1, 1, 256, 1, 1, 0, nullptr, p, nullptr));
	refused("a grid that is too high", cuLaunchKernel(f, 1, 65536, 1, 256, 1, 1, 0, nullptr, p, nullptr));
	refused("more threads than the kernel's bounds", cuLaunchKernel(f, 1, 1, 1, 257, 1, 1, 0, nullptr, p, nullptr));
	refused("more shared memory than is set", cuLaunchKernel(f, 1, 1, 1, 256, 1, 1, 49153, nullptr, p, nullptr));
	refused("more shared memory than there is", cuFuncSetAttribute(f, 8, 227 * 1024 + 1));
	refused("no parameters", cuLaunchKernel(f, 1, 1, 1, 256, 1, 1, 0, nullptr, nullptr, nullptr));
	refused("an unknown stream", cuLaunchKernel(f, 1, 1, 1, 256, 1, 1, 0, p, p, nullptr));
	refused("a copy beyond the allocation", cuMemcpyHtoD_v2(x.at() + 4, slots, 40));
	refused("a free of what was not allocated", cuMemFree_v2(x.at() + 4));
	refused("a stream that is none", cuStreamDestroy_v2(&x));
	void *h;
	float one = 1;
	must(cublasCreate_v2(&h), "cublas");
	refused("a leading dimension that is too small", cublasGemmEx(h, 0, 0, 4, 4, 4, &one, nullptr, 0, 3, nullptr, 0, 4, &one, nullptr, 0, 4, 68, -1));
	refused("mixed operands", cublasGemmEx(h, 0, 0, 4, 4, 4, &one, nullptr, 0, 4, nullptr, 14, 4, &one, nullptr, 0, 4, 68, -1));
	Tensor fresh(F32, 100);
	for (double v : fresh.get())
		if (v == v) die("fresh memory is not NaN");
	void *context;
	must(cuDevicePrimaryCtxRetain(&context, 0), "context");
	must(cuCtxSetCurrent(nullptr), "context");
	refused("a call without a context", cuLaunchKernel(f, 1, 1, 1, 256, 1, 1, 0, nullptr, p, nullptr));
	must(cuCtxSetCurrent(context), "context");
}

// faulty runs a kernel of faulty.cu, which should set out_t = 255 − t.
static void faulty(const std::string &name) {
	std::string text = ".version 7.8\n.address_size 64\n.entry " + name + "(.param .u64 out)\n";
	must(cuModuleLoadData(&modules["faulty"], text.c_str()), "faulty");
	Tensor out(F32, 256);
	launch("faulty", name, {1, 1, 1, 256, 1024}, out);
	std::vector<double> want(256);
	for (int i = 0; i < 256; i++) want[i] = 255 - i;
	near(name, out, want, 0);
}

int main(int n, char **arg) {
	if (n < 2) die("usage: check PTXDIR [KERNEL] <cases");
	void *context;
	must(cuInit(0), "init");
	must(cuDevicePrimaryCtxRetain(&context, 0), "context");
	must(cuCtxSetCurrent(context), "context");
	if (n == 3) return faulty(arg[2]), 0;
	for (const char *m : {"elementwise", "rows", "norm", "loss", "update", "gemm", "merge", "compress", "spmm", "adapter", "attention", "attention_dq", "attention_dkv"}) load(arg[1], m);
	refusals();
	const std::pair<const char *, void (*)()> groups[] = {{"elementwise", elementwise}, {"rows", rows}, {"norm", norms}, {"loss", losses},
		{"update", updates}, {"gemm", products}, {"merge", packed}, {"mma.sp", sparseCores}};
	for (auto &g : groups) g.second(), printf("ok %s\n", g.first);
	int cases = 0;
	for (std::string line; std::getline(std::cin, line); cases++)
		line.rfind("adapter", 0) == 0 ? adapter(line) : line.rfind("spmm", 0) == 0 ? spmm(line) : attention(line);
	printf("ok attention, adapters and sparse products, %d cases\n", cases);
	for (const std::string &name : all)
		if (!ran.count(name)) die(name + " has not run");
	printf("ok all %zu kernels\n", ran.size());
}
