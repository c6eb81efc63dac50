#!/bin/sh
# build.sh OUTDIR [asan]: compiles the kernels for the host, and libcuda.so.1, libcublas.so.{11,12,13} around them; `check`, too, their
# own tests. With asan, OUTDIR holds the same with address and undefined-behaviour sanitizers. What is up to date by the hash of its
# sources is not built again. Needs g++ (C++17) and nothing else.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
kernels=$here/../kernels
out=${1:?usage: build.sh OUTDIR [asan]}
mode=${2:-plain}
CXX=${CXX:-g++}
flags="-std=c++17 -O2 -g1 -fPIC -Wall -Wno-unknown-pragmas -Wno-unused-variable -Wno-sign-compare -Wno-unused-function -Wno-unused-but-set-variable -Wno-strict-aliasing -fno-strict-aliasing -ffp-contract=off"
case $mode in
plain) flags="$flags -fsanitize=alignment -fsanitize-undefined-trap-on-error" ;;
asan) flags="$flags -O1 -fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer" ;;
*) echo "build.sh: mode $mode" >&2; exit 2 ;;
esac
mkdir -p "$out"
out=$(cd "$out" && pwd)
common=$(cat "$here"/*.h "$kernels"/*.h "$kernels"/*.cuh "$here/build.sh" | cksum)

# compile OBJECT SOURCE [flag …] unless it is of the same content.
compile() {
	object=$1 source=$2
	shift 2
	stamp="$common $(cksum <"$source") $flags $* $($CXX -dumpversion)"
	[ -f "$object" ] && [ "$(cat "$object.stamp" 2>/dev/null)" = "$stamp" ] && return 0
	# shellcheck disable=SC2086
	$CXX $flags -I"$kernels" -I"$here" "$@" -c -o "$object" "$source"
	echo "$stamp" >"$object.stamp"
	changed=1
}

# unit CU compiles a file of kernels to $object.
unit() {
	cu=$1
	name=$(basename "$cu" .cu)
	unit=$out/$name.host.cc
	{
		echo '#include "cuda_host.h"'
		echo '#include "kernels.h"'
		echo "#include \"$cu\""
		echo '#undef X'
		# every kernel, by its declaration after the preprocessor: its launch bounds and its name
		$CXX -std=c++17 -x c++ -E -P -I"$kernels" "$cu" | tr '\n' ' ' |
			grep -oE 'extern "C" __global__ void __launch_bounds__\([0-9]+\) [a-zA-Z0-9_]+' |
			sed -E 's/.*\(([0-9]+)\) (.*)/static const bool registered_\2 = (hostgpu::add({"\2", \1, hostgpu::Call<\2>::run, hostgpu::Call<\2>::params}), true);/'
	} >"$unit.new"
	if cmp -s "$unit.new" "$unit"; then rm "$unit.new"; else mv "$unit.new" "$unit"; fi
	cksum <"$cu" | cmp -s - "$out/$name.cu.sum" || { rm -f "$out/$name.o.stamp"; cksum <"$cu" >"$out/$name.cu.sum"; }
	compile "$out/$name.o" "$unit"
}

changed=0
objects=
for file in "$kernels"/*.cu; do
	unit "$file"
	objects="$objects $out/$name.o"
done
compile "$out/block.o" "$here/block.cc"
compile "$out/libcuda.o" "$here/libcuda.cc"
for v in 11 12 13; do compile "$out/cublas$v.o" "$here/libcublas.cc" -DHOSTGPU_CUBLAS=$v -O3; done
if [ "$changed" = 1 ] || [ ! -f "$out/libcuda.so.1" ]; then
	# shellcheck disable=SC2086
	$CXX $flags -shared -Wl,-soname,libcuda.so.1 -o "$out/libcuda.so.1.new" $objects "$out/block.o" "$out/libcuda.o"
	mv "$out/libcuda.so.1.new" "$out/libcuda.so.1"
	for v in 11 12 13; do
		# shellcheck disable=SC2086
		$CXX $flags -shared -Wl,-soname,libcublas.so.$v -o "$out/libcublas.so.$v.new" "$out/cublas$v.o"
		mv "$out/libcublas.so.$v.new" "$out/libcublas.so.$v"
	done
fi
if [ -f "$here/check.cc" ]; then
	unit "$here/faulty.cu"
	compile "$out/check.o" "$here/check.cc"
	if [ "$changed" = 1 ] || [ ! -f "$out/check" ]; then
		# shellcheck disable=SC2086
		$CXX $flags -o "$out/check" "$out/check.o" "$out/faulty.o" "$out/libcublas.so.12" "$out/libcuda.so.1" -Wl,-rpath,"\$ORIGIN"
	fi
fi
