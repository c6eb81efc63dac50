// libcublas.cc is a libcublas without a GPU: cublasGemmEx and GemmStridedBatchedEx, column-major as cuBLAS documents them, on host
// pointers:  C = α·op(A)·op(B) + β·C, op(A) [m,k], op(B) [k,n], sums in float32. Type combinations that cuBLAS refuses are refused.
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <vector>

enum { SUCCESS = 0, NOT_INITIALIZED = 1, INVALID_VALUE = 7, NOT_SUPPORTED = 15 };
enum { R_32F = 0, R_16F = 2, R_16BF = 14 };

struct Handle {
	uint64_t magic;
	void *stream;
};
static const uint64_t alive = 0x63626c6173;

static float widen(const void *p, int type, int64_t i) {
	if (type == R_32F) return ((const float *)p)[i];
	uint16_t h = ((const uint16_t *)p)[i];
	if (type == R_16BF) {
		uint32_t u = (uint32_t)h << 16;
		float f;
		return memcpy(&f, &u, 4), f;
	}
	int exp = h >> 10 & 31, frac = h & 1023;
	float f = exp == 0 ? ldexpf(frac, -24) : exp == 31 ? (frac ? NAN : INFINITY) : ldexpf(1024 + frac, exp - 25);
	return h >> 15 ? -f : f;
}

static void narrow(void *p, int type, int64_t i, float f) {
	if (type == R_32F) {
		((float *)p)[i] = f;
		return;
	}
	uint32_t u;
	memcpy(&u, &f, 4);
	((uint16_t *)p)[i] = f != f ? 0x7fff : (uint16_t)((u + 0x7fff + (u >> 16 & 1)) >> 16);
}

// packed is op(X) as float32 panels: rows of [count] with depth k, row i at i·k.
static std::vector<float> packed(const void *x, int type, int64_t ld, bool along, int64_t count, int64_t k) {
	std::vector<float> y(count * k);
	for (int64_t i = 0; i < count; i++)
		for (int64_t p = 0; p < k; p++) y[i * k + p] = widen(x, type, along ? i * ld + p : p * ld + i);
	return y;
}

// dot16 gives 16 products of one row with 16 rows that lie interleaved.
static void dot16(float (&c)[16], const float *a, const float *b, int64_t k) {
	for (int64_t p = 0; p < k; p++)
		for (int j = 0; j < 16; j++) c[j] += a[p] * b[p * 16 + j];
}

static bool supported(int a, int b, int c, int compute) {
	if (compute != 68 && compute != 69 && compute != 77) return false;
	if (a != b) return false;
	return a == R_32F ? c == R_32F : (a == R_16BF && (c == R_16BF || c == R_32F)) || (a == R_16F && c == R_32F);
}

static int gemm(int ta, int tb, int m, int n, int k, float alpha, const void *a, int at, int64_t lda, const void *b, int bt, int64_t ldb, float beta,
	void *c, int ct, int64_t ldc) {
	std::vector<float> left = packed(a, at, lda, ta != 0, m, k), right = packed(b, bt, ldb, tb == 0, n, k), panel(k * 16);
	for (int j0 = 0; j0 < n; j0 += 16) {
		int width = n - j0 < 16 ? n - j0 : 16;
		for (int64_t p = 0; p < k; p++)
			for (int j = 0; j < 16; j++) panel[p * 16 + j] = j < width ? right[(j0 + j) * (int64_t)k + p] : 0;
		for (int i = 0; i < m; i++) {
			float sum[16] = {};
			dot16(sum, &left[i * (int64_t)k], panel.data(), k);
			for (int j = 0; j < width; j++) {
				int64_t to = (j0 + j) * ldc + i;
				narrow(c, ct, to, alpha * sum[j] + (beta == 0 ? 0 : beta * widen(c, ct, to)));
			}
		}
	}
	return SUCCESS;
}

static int refuse(const char *why) { return fprintf(stderr, "hostgpu: cublas: %s\n", why), INVALID_VALUE; }

static int size(int type) { return type == R_32F ? 4 : 2; }

extern "C" {

int cublasCreate_v2(Handle **h) { return *h = new Handle{alive, nullptr}, SUCCESS; }
int cublasDestroy_v2(Handle *h) {
	if (!h || h->magic != alive) return NOT_INITIALIZED;
	h->magic = 0;
	return delete h, SUCCESS;
}
int cublasGetVersion_v2(Handle *h, int *v) { return h && h->magic == alive ? (*v = 120000, SUCCESS) : NOT_INITIALIZED; }
int cublasSetStream_v2(Handle *h, void *s) { return h && h->magic == alive ? (h->stream = s, SUCCESS) : NOT_INITIALIZED; }
int cublasSetWorkspace_v2(Handle *h, void *p, size_t) {
	if (!h || h->magic != alive) return NOT_INITIALIZED;
	return (uintptr_t)p % 256 ? refuse("a workspace that is not 256-byte aligned") : SUCCESS;
}
int cublasSetMathMode(Handle *h, int) { return h && h->magic == alive ? SUCCESS : NOT_INITIALIZED; }
const char *cublasGetStatusString(int rc) {
	switch (rc) {
	case SUCCESS: return "success";
	case NOT_INITIALIZED: return "the library was not initialized";
	case INVALID_VALUE: return "an unsupported value or parameter was passed to the function";
	case NOT_SUPPORTED: return "the functionality requested is not supported";
	}
	return "unknown";
}

int cublasGemmStridedBatchedEx(Handle *h, int ta, int tb, int m, int n, int k, const float *alpha, const void *a, int at, int lda, long long sa,
	const void *b, int bt, int ldb, long long sb, const float *beta, void *c, int ct, int ldc, long long sc, int batch, int compute, int) {
	if (!h || h->magic != alive) return NOT_INITIALIZED;
	if (!supported(at, bt, ct, compute)) return NOT_SUPPORTED;
	if (m < 0 || n < 0 || k < 0 || batch < 0) return refuse("a negative size");
	if (ta < 0 || ta > 1 || tb < 0 || tb > 1) return refuse("a transposition that is neither N nor T");
	if (lda < (ta ? k : m) || lda < 1 || ldb < (tb ? n : k) || ldb < 1 || ldc < m || ldc < 1) return refuse("a leading dimension that is too small");
	if ((uintptr_t)a % size(at) || (uintptr_t)b % size(bt) || (uintptr_t)c % size(ct)) return refuse("a matrix that is not aligned");
	for (int i = 0; m && n && i < batch; i++)
		gemm(ta, tb, m, n, k, *alpha, (const char *)a + i * sa * size(at), at, lda, (const char *)b + i * sb * size(bt), bt, ldb, *beta,
			(char *)c + i * sc * size(ct), ct, ldc);
	return SUCCESS;
}

int cublasGemmEx(Handle *h, int ta, int tb, int m, int n, int k, const float *alpha, const void *a, int at, int lda, const void *b, int bt, int ldb,
	const float *beta, void *c, int ct, int ldc, int compute, int algo) {
	return cublasGemmStridedBatchedEx(h, ta, tb, m, n, k, alpha, a, at, lda, 0, b, bt, ldb, 0, beta, c, ct, ldc, 0, 1, compute, algo);
}

} // extern "C"
