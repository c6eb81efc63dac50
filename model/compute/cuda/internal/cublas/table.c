//go:build cuda

#include "table.h"
#include <dlfcn.h>
#include <stdio.h>
#include <string.h>

enum { COMPUTE_32F = 68, DEFAULT_ALGO = -1 };

int splora_cublas_open(splora_cublas *t, const char *path, char *why, size_t n) {
	memset(t, 0, sizeof *t);
	t->lib = dlopen(path, RTLD_NOW | RTLD_LOCAL);
	if (!t->lib) {
		snprintf(why, n, "%s", dlerror());
		return 0;
	}
	struct { void *to; const char *name; int must; } all[] = {
		{&t->create, "cublasCreate_v2", 1}, {&t->destroy, "cublasDestroy_v2", 1}, {&t->version, "cublasGetVersion_v2", 1},
		{&t->stream, "cublasSetStream_v2", 1}, {&t->workspace, "cublasSetWorkspace_v2", 1}, {&t->math, "cublasSetMathMode", 1},
		{&t->text, "cublasGetStatusString", 0}, {&t->gemm, "cublasGemmEx", 1},
	};
	for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
		void *f = dlsym(t->lib, all[i].name);
		memcpy(all[i].to, &f, sizeof f);
		if (!f && all[i].must) {
			snprintf(why, n, "%s has no %s", path, all[i].name);
			dlclose(t->lib);
			return 0;
		}
	}
	return 1;
}

int splora_cublas_start(splora_cublas *t, void **handle, uintptr_t stream, uintptr_t space, size_t n, int math, int *version) {
	int rc = t->create(handle);
	if (rc) return rc;
	if (!(rc = t->stream(*handle, (void *)stream)) && !(rc = t->workspace(*handle, (void *)space, n)) && !(rc = t->math(*handle, math)))
		rc = t->version(*handle, version);
	if (rc) t->destroy(*handle);
	return rc;
}

int splora_cublas_stop(splora_cublas *t, void *handle) { return t->destroy(handle); }

int splora_cublas_gemm(splora_cublas *t, void *handle, int ta, int tb, int m, int n, int k, float alpha, uintptr_t a, int at, int lda, uintptr_t b,
	int bt, int ldb, float beta, uintptr_t c, int ct, int ldc) {
	return t->gemm(handle, ta, tb, m, n, k, &alpha, (void *)a, at, lda, (void *)b, bt, ldb, &beta, (void *)c, ct, ldc, COMPUTE_32F, DEFAULT_ALGO);
}

const char *splora_cublas_text(splora_cublas *t, int status) { return t->text ? t->text(status) : 0; }

void splora_cublas_preload(const char *path) { dlopen(path, RTLD_NOW | RTLD_GLOBAL); }
