package nccl

import (
	"crypto/sha256"
	"fmt"
)

// Result is ncclResult_t. As an error it is never Success.
type Result int

// Results.
const (
	Success            Result = 0
	UnhandledCudaError Result = 1
	SystemError        Result = 2
	InternalError      Result = 3
	InvalidArgument    Result = 4
	InvalidUsage       Result = 5
	RemoteError        Result = 6
	InProgress         Result = 7
	Timeout            Result = 8
)

func (r Result) String() string {
	names := [...]string{"ncclSuccess", "ncclUnhandledCudaError", "ncclSystemError", "ncclInternalError", "ncclInvalidArgument",
		"ncclInvalidUsage", "ncclRemoteError", "ncclInProgress", "ncclTimeout"}
	if r < 0 || int(r) >= len(names) {
		return fmt.Sprintf("ncclResult_t %d", int(r))
	}
	return names[r]
}

// Error makes a Result the target of errors.Is: errors.Is(err, nccl.RemoteError).
func (r Result) Error() string { return r.String() }

// DataType is ncclDataType_t.
type DataType int

// Data types. The two of 8 bits since 2.24.
const (
	Int8       DataType = 0
	Uint8      DataType = 1
	Int32      DataType = 2
	Uint32     DataType = 3
	Int64      DataType = 4
	Uint64     DataType = 5
	Float16    DataType = 6
	Float32    DataType = 7
	Float64    DataType = 8
	Bfloat16   DataType = 9
	Float8e4m3 DataType = 10
	Float8e5m2 DataType = 11
)

// Size is the bytes of one element.
func (t DataType) Size() int { return [...]int{1, 1, 4, 4, 8, 8, 2, 4, 8, 2, 1, 1}[t] }

func (t DataType) String() string {
	return [...]string{"int8", "uint8", "int32", "uint32", "int64", "uint64", "float16", "float32", "float64", "bfloat16",
		"float8e4m3", "float8e5m2"}[t]
}

// RedOp is ncclRedOp_t.
type RedOp int

// Reductions.
const (
	Sum  RedOp = 0
	Prod RedOp = 1
	Max  RedOp = 2
	Min  RedOp = 3
	Avg  RedOp = 4
)

func (o RedOp) String() string { return [...]string{"sum", "prod", "max", "min", "avg"}[o] }

// UniqueId is the address of, and the credential for, a communicator that is being formed.
type UniqueId [128]byte

// String tells ids apart without giving them away.
func (id UniqueId) String() string { return fmt.Sprintf("unique id #%.4x", sha256.Sum256(id[:])) }

// GoString is String: %#v gives nothing away either.
func (id UniqueId) GoString() string { return id.String() }

// Version is the library's version code: 2.30.7 is 23007.
type Version int

func (v Version) String() string { return fmt.Sprintf("%d.%d.%d", v/10000, v/100%100, v%100) }

// MultiRankGPU: two ranks may share one GPU with NCCL_MULTI_RANK_GPU_ENABLE=1. Older libraries need NCCL_HOSTID to differ.
func (v Version) MultiRankGPU() bool { return v >= 23003 }

// RAS: the library's own monitor listens (NCCL_RAS_ADDR), since 2.24.
func (v Version) RAS() bool { return v >= 22400 }

// oldest that is served: has CommSplit and reads the 48 bytes of Config.
const oldest Version = 21800
