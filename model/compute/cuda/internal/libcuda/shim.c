//go:build cuda

// The table behind the jumps, filled before Go's first init. See libcuda.go.
#include <dlfcn.h>
#include <string.h>
#include "names.h"

enum { N = sizeof names / sizeof *names, NO_DEVICE = 100, NO_LIBRARY = 34, NO_SYMBOL = 500 };

void *splora_cu_tab[N] __attribute__((visibility("hidden")));
int splora_cu_rc = -1;
char splora_cu_why[512];

static int (*real_init)(unsigned);

static int no_device(void) { return NO_DEVICE; }
static int no_symbol(void) { return NO_SYMBOL; }

// gorgonia.org/cu ends the process when cuInit fails, so here it does not: its result is kept instead.
static int soft_init(unsigned flags) {
	splora_cu_rc = real_init ? real_init(flags) : NO_LIBRARY;
	return 0;
}

__attribute__((constructor)) static void load(void) {
	void *lib = dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL);
	if (!lib) {
		const char *e = dlerror();
		strncpy(splora_cu_why, e ? e : "", sizeof splora_cu_why - 1);
	}
	for (int i = 0; i < N; i++) {
		void *p = lib ? dlsym(lib, names[i]) : 0;
		if (!strcmp(names[i], "cuInit")) {
			real_init = (int (*)(unsigned))p;
			p = (void *)soft_init;
		}
		splora_cu_tab[i] = p ? p : lib ? (void *)no_symbol : (void *)no_device;
	}
}
