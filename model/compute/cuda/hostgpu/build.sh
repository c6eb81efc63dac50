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
asan) flags="$flags -O1 -fsanitize=address,alignment,bounds,shift -fno-sanitize-recover=all -fno-omit-frame-pointer" ;;
*) echo "build.sh: mode $mode" >&2; exit 2 ;;
esac
mkdir -p "$out"
out=$(cd "$out" && pwd)
whole="$(cat "$here"/*.h "$here"/*.cc "$here"/*.cu "$here/build.sh" "$kernels"/*.h "$kernels"/*.cuh "$kernels"/*.cu | cksum) $flags $($CXX -dumpfullversion)"
[ "$(cat "$out/stamp" 2>/dev/null)" = "$whole" ] && exit 0
rm -f "$out/stamp"

# compile OBJECT SOURCE [flag …] unless it was compiled from the same text, included files and all.
compile() {
	object=$1 source=$2
	shift 2
	# shellcheck disable=SC2086
	text="$($CXX $flags -I"$kernels" -I"$here" "$@" -E -P "$source" | cksum) $flags $* $($CXX -dumpfullversion)"
	[ -f "$object" ] && [ "$(cat "$object.stamp" 2>/dev/null)" = "$text" ] && return 0
	# shellcheck disable=SC2086
	$CXX $flags -I"$kernels" -I"$here" "$@" -c -o "$object" "$source"
	echo "$text" >"$object.stamp"
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
	} >"$unit"
	compile "$out/$name.o" "$unit"
}

objects=
for file in "$kernels"/*.cu; do
	unit "$file"
	objects="$objects $out/$name.o"
done
compile "$out/block.o" "$here/block.cc"
compile "$out/libcuda.o" "$here/libcuda.cc"
compile "$out/cublas.o" "$here/libcublas.cc" -O3
unit "$here/faulty.cu"
unit "$here/mma_sp.cu"
compile "$out/check.o" "$here/check.cc" -O1 -fno-sanitize=all

# link OUTPUT [argument …]; what another program has loaded stays as it is.
link() {
	output=$1
	shift
	# shellcheck disable=SC2086
	$CXX $flags -o "$output.new" "$@"
	mv "$output.new" "$output"
}
# shellcheck disable=SC2086
link "$out/libcuda.so.1" -shared -Wl,-soname,libcuda.so.1 $objects "$out/block.o" "$out/libcuda.o"
for v in 11 12 13; do link "$out/libcublas.so.$v" -shared -Wl,-soname,libcublas.so.$v "$out/cublas.o"; done
link "$out/check" "$out/check.o" "$out/faulty.o" "$out/mma_sp.o" "$out/libcublas.so.12" "$out/libcuda.so.1" -Wl,-rpath,"\$ORIGIN"
echo "$whole" >"$out/stamp"
