// cuBLAS as it is found at run time: the calls used, with prototypes of our own (the v2 API, unchanged from 11 to 13).
#pragma once
#include <stddef.h>
#include <stdint.h>

typedef struct {
	void *lib;
	int (*create)(void **handle);
	int (*destroy)(void *handle);
	int (*version)(void *handle, int *v);
	int (*stream)(void *handle, void *stream);
	int (*workspace)(void *handle, void *at, size_t n);
	int (*math)(void *handle, int mode);
	const char *(*text)(int status); // since 11.4; may be null
	int (*gemm)(void *handle, int ta, int tb, int m, int n, int k, const void *alpha, const void *a, int at, int lda, const void *b, int bt,
		int ldb, const void *beta, void *c, int ct, int ldc, int compute, int algo);
} splora_cublas;

// splora_cublas_open fills t from the library at path; what is missing stands in why.
int splora_cublas_open(splora_cublas *t, const char *path, char *why, size_t n);
int splora_cublas_start(splora_cublas *t, void **handle, uintptr_t stream, uintptr_t space, size_t n, int math, int *version);
int splora_cublas_stop(splora_cublas *t, void *handle);
int splora_cublas_gemm(splora_cublas *t, void *handle, int ta, int tb, int m, int n, int k, float alpha, uintptr_t a, int at, int lda, uintptr_t b,
	int bt, int ldb, float beta, uintptr_t c, int ct, int ldc);
const char *splora_cublas_text(splora_cublas *t, int status);
// splora_cublas_preload opens a library that the next one needs.
void splora_cublas_preload(const char *path);
