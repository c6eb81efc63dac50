// Reductions, in order of rank and in the type itself.
#pragma once

#include <cstdint>
#include <cstring>
#include <vector>

namespace {

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

} // namespace
