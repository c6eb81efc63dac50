//go:build cuda

package main

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/splora/splora/model/compute/cuda/cudatest"
	"github.com/splora/splora/model/tensor"
	"github.com/splora/splora/nccl"
)

// ncclRole tells a copy of the test program that it is a rank of a bare communicator: "rank size mode id". Rank 0's id is "new": it
// makes it, and says it.
const ncclRole = "SPLORA_TEST_NCCL_RANK"

// bareRank is one rank of a communicator on a GPU, or on the stand-ins of both.
type bareRank struct {
	t          *testing.T
	be         hardware
	comm       *nccl.Comm
	rank, size int
}

// TestBeARankOfABareCommunicator is the child of the tests below.
func TestBeARankOfABareCommunicator(t *testing.T) {
	var r bareRank
	var mode, text string
	if n, _ := fmt.Sscan(os.Getenv(ncclRole), &r.rank, &r.size, &mode, &text); n != 4 {
		return // only as a child
	}
	lib, err := nccl.Open("")
	if err != nil {
		t.Fatal("NONE", err)
	}
	id := theID(t, lib, text)
	be, err := openDevice("cuda", true, 1, false, func(string) {})
	if err != nil {
		t.Fatal(err)
	}
	defer be.Close()
	began := time.Now()
	comm, err := lib.CommInitRankConfig(within(t, time.Minute), r.size, id, r.rank, nccl.Config{})
	if err != nil {
		t.Fatal(err)
	}
	fmt.Printf("rank %d: NCCL %s, communicator of %d after %v\n", r.rank, lib.GetVersion(), r.size, time.Since(began).Round(time.Millisecond))
	r.t, r.be, r.comm = t, be, comm
	r.introduce()
	if mode == "abort" {
		r.abort()
	} else {
		r.collectives(lib)
		if err := errors.Join(comm.Finalize(within(t, time.Minute)), comm.Destroy()); err != nil {
			t.Error(err)
		}
	}
	if !t.Failed() {
		fmt.Println("FINE")
	}
}

// theID is the one in text, or a new one, which is said.
func theID(t *testing.T, lib *nccl.Library, text string) (id nccl.UniqueId) {
	if text != "new" {
		if n, err := hex.Decode(id[:], []byte(text)); n != len(id) || err != nil {
			t.Fatal(n, err)
		}
		return id
	}
	id, err := lib.GetUniqueId()
	if err != nil {
		t.Fatal(err)
	}
	fmt.Printf("ID %x\n", id[:])
	return id
}

func within(t *testing.T, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), d)
	t.Cleanup(cancel)
	return ctx
}

// introduce checks what the communicator says of itself.
func (r bareRank) introduce() {
	n, err1 := r.comm.Count()
	me, err2 := r.comm.UserRank()
	_, err3 := r.comm.CuDevice()
	if err := errors.Join(err1, err2, err3); err != nil || n != r.size || me != r.rank {
		r.t.Errorf("rank %d of %d, not %d of %d: %v", me, n, r.rank, r.size, err)
	}
}

// ncclInput is rank k's i-th input: float32 holds every sum of them.
func ncclInput(k, i int) float32 { return float32((k*31+i*7)%1013 - 500) }

// try runs a collective from send [n·size] to recv [n·size] and compares what recv holds then, up to the length of want.
func (r bareRank) try(what string, n int, begin func(send, recv, stream uintptr) error, want func(i int) float32, length int) {
	r.t.Helper()
	send, recv := alloc(r.be, tensor.F32, 1, n*r.size), alloc(r.be, tensor.F32, 1, n*r.size)
	host := tensor.New(tensor.F32, 1, n*r.size)
	x := host.Float32()
	for i := range x {
		x[i] = ncclInput(r.rank, i)
	}
	r.be.Upload(send, host.Mem.Host)
	err := begin(send.Mem.Device, recv.Mem.Device, r.be.gpu.Stream())
	if err == nil {
		err = r.comm.Wait(within(r.t, time.Minute))
	}
	if err == nil {
		err = r.drained(time.Minute)
	}
	if err != nil {
		r.t.Fatalf("%s: %v", what, err)
	}
	r.be.Download(host.Mem.Host, recv)
	if err := r.be.Sync(); err != nil {
		r.t.Fatal(err)
	}
	for i, got := range x[:length] {
		if got != want(i) {
			r.t.Fatalf("%s: float %d of %d on rank %d is %v, want %v", what, i, length, r.rank, got, want(i))
		}
	}
}

// drained waits for the stream.
func (r bareRank) drained(limit time.Duration) error {
	for end := time.Now().Add(limit); time.Now().Before(end); time.Sleep(50 * time.Microsecond) {
		if done, err := r.be.gpu.Done(); done || err != nil {
			return err
		}
	}
	return errors.New("the stream is still busy")
}

// collectives tries every one, at lengths that NCCL cuts into one and into several pieces.
func (r bareRank) collectives(lib *nccl.Library) {
	sum := func(i int) (s float32) {
		for k := range r.size {
			s += ncclInput(k, i)
		}
		return s
	}
	c, root, left := r.comm, r.size-1, (r.rank+r.size-1)%r.size
	for _, n := range []int{1, 1001, 200003} {
		r.try("all-reduce", n, func(s, d, st uintptr) error { return c.AllReduce(s, d, n, nccl.Float32, nccl.Sum, st) }, sum, n)
		r.try("broadcast", n, func(s, d, st uintptr) error { return c.Broadcast(s, d, n, nccl.Float32, root, st) },
			func(i int) float32 { return ncclInput(root, i) }, n)
		r.try("all-gather", n, func(s, d, st uintptr) error { return c.AllGather(s, d, n, nccl.Float32, st) },
			func(i int) float32 { return ncclInput(i/n, i%n) }, n*r.size)
		r.try("reduce-scatter", n, func(s, d, st uintptr) error { return c.ReduceScatter(s, d, n, nccl.Float32, nccl.Sum, st) },
			func(i int) float32 { return sum(r.rank*n + i) }, n)
		length := 0
		if r.rank == root {
			length = n
		}
		r.try("reduce", n, func(s, d, st uintptr) error { return c.Reduce(s, d, n, nccl.Float32, nccl.Sum, root, st) }, sum, length)
		r.try("send and receive", n, func(s, d, st uintptr) error {
			return errors.Join(lib.GroupStart(), c.Send(s, n, nccl.Float32, (r.rank+1)%r.size, st), c.Recv(d, n, nccl.Float32, left, st), lib.GroupEnd())
		}, func(i int) float32 { return ncclInput(left, i) }, n)
	}
}

// abort: rank 1 is killed, rank 0 waits for it in an all-reduce until it has had enough, and must get its stream back.
func (r bareRank) abort() {
	r.try("all-reduce", 1001, func(s, d, st uintptr) error { return r.comm.AllReduce(s, d, 1001, nccl.Float32, nccl.Sum, st) },
		func(i int) float32 { return ncclInput(0, i) + ncclInput(1, i) }, 1001)
	if r.rank == 1 {
		syscall.Kill(os.Getpid(), syscall.SIGKILL)
	}
	v := alloc(r.be, tensor.F32, 1, 1001)
	if err := r.comm.AllReduce(v.Mem.Device, v.Mem.Device, 1001, nccl.Float32, nccl.Sum, r.be.gpu.Stream()); err != nil {
		r.t.Log("the call itself: ", err)
	}
	waited := r.comm.Wait(within(r.t, 2*time.Second))
	busy := r.drained(time.Second)
	fmt.Printf("after a peer was killed: NCCL says %v; stream: %v\n", waited, busy)
	if waited == nil && busy == nil {
		r.t.Error("an all-reduce without its peer has ended")
	}
	began := time.Now()
	if err := r.comm.Abort(10 * time.Second); err != nil {
		r.t.Fatal(err)
	}
	fmt.Printf("abort took %v\n", time.Since(began).Round(time.Millisecond))
	if err := r.drained(10 * time.Second); err != nil {
		r.t.Error("after the abort:", err)
	}
}

// said is what a process writes, and a channel that has its first line.
type said struct {
	all   bytes.Buffer
	first chan string
}

func (s *said) Write(b []byte) (int, error) {
	n, err := s.all.Write(b)
	if line, _, whole := strings.Cut(s.all.String(), "\n"); whole && s.first != nil {
		s.first <- line
		s.first = nil
	}
	return n, err
}

// bare runs the ranks of a communicator to their end, and gives what they said.
func bare(t *testing.T, size int, mode string) []string {
	t.Helper()
	env := gpu(t)
	if !cudatest.Driver() {
		env = append(env, env[0]+":"+filepath.Dir(standInNCCL(t)), "HOSTNCCL_TRANSPORT=p2p")
	} else if size > 1 {
		env, _ = overRealNCCL(t)
	}
	outs, done := make([]said, size), make(chan error, size)
	run := func(r int, id string) {
		cmd := exec.Command(os.Args[0], "-test.run=^TestBeARankOfABareCommunicator$")
		cmd.Env = append(append(os.Environ(), env...), fmt.Sprintf("%s=%d %d %s %s", ncclRole, r, size, mode, id))
		cmd.Stdout, cmd.Stderr = &outs[r], &outs[r]
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		hung := time.AfterFunc(patience, func() { cmd.Process.Kill() })
		go func() { done <- cmd.Wait(); hung.Stop() }()
	}
	first := make(chan string, 1)
	outs[0].first = first
	run(0, "new")
	started, id := 1, ""
	select {
	case line := <-first:
		for id, _ = strings.CutPrefix(line, "ID "); started < size && id != line; started++ {
			run(started, id)
		}
	case err := <-done:
		done <- err
	}
	var all []string
	for range started {
		<-done
	}
	for r := range started {
		all = append(all, outs[r].all.String())
		t.Logf("rank %d: %s", r, strings.ReplaceAll(all[r], id, "…"))
	}
	if strings.Contains(all[0], "NONE") {
		t.Skip(all[0])
	}
	return all
}

func TestCollectivesOnTheGPUMoveAndSumWhatTheySay(t *testing.T) {
	for _, size := range []int{1, 2} {
		for r, said := range bare(t, size, "collectives") {
			if !strings.Contains(said, "FINE") {
				t.Errorf("rank %d of %d: %s", r, size, said)
			}
		}
	}
	ran(t, "nccl/communicator", "nccl/collectives")
}

func TestAnAbortFreesTheStreamFromAnAllReduceWhosePeerIsDead(t *testing.T) {
	if said := bare(t, 2, "abort"); !strings.Contains(said[0], "FINE") {
		t.Error(said[0])
	}
	ran(t, "nccl/abort")
}

// ran says, on a GPU, what has run there, as model/compute/cuda/hardware.txt names it.
func ran(t *testing.T, things ...string) {
	t.Helper()
	if t.Failed() || !cudatest.Driver() {
		return
	}
	for _, s := range things {
		fmt.Println("ran " + s)
	}
}
