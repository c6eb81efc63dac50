// Encode writes the ids of documents for comparison with another implementation.
//
// Usage: encode [-special] DIR DOCS IDS. DOCS holds documents, IDS gets their ids, both as records: a little-endian
// uint32 count, then so many bytes or int32 ids. The processor time (one core) goes to standard error. With -decode IDS is
// read and DOCS written.
package main

import (
	"encoding/binary"
	"flag"
	"fmt"
	"os"
	"runtime"
	"syscall"
	"time"

	"github.com/splora/splora/data/tokenizer"
)

func main() {
	special := flag.Bool("special", false, "add special tokens (encode), or leave them out (decode)")
	decode := flag.Bool("decode", false, "read ids, write text")
	flag.Parse()
	if flag.NArg() != 3 {
		flag.Usage()
		os.Exit(2)
	}
	if err := run(flag.Arg(0), flag.Arg(1), flag.Arg(2), *special, *decode); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(dir, docs, ids string, special, decode bool) error {
	runtime.GOMAXPROCS(1)
	start := time.Now()
	t, err := tokenizer.Load(dir)
	if err != nil {
		return err
	}
	load := time.Since(start)
	from, to, convert := docs, ids, encodeRecord
	if decode {
		from, to, convert = ids, docs, decodeRecord
	}
	data, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	out := make([]byte, 0, 4*len(data))
	text := 0
	begin := processorTime()
	for len(data) > 0 {
		n := int(binary.LittleEndian.Uint32(data))
		if decode {
			n *= 4
		}
		record := data[4 : 4+n]
		data = data[4+n:]
		size := len(out)
		out = convert(out, t, record, special)
		if decode {
			n = len(out) - size - 4
		}
		text += n
	}
	busy := processorTime() - begin
	fmt.Fprintf(os.Stderr, "load %.0f ms, %.2f MB in %.2f s = %.1f MB/s\n",
		load.Seconds()*1e3, float64(text)/1e6, busy.Seconds(), float64(text)/1e6/busy.Seconds())
	return os.WriteFile(to, out, 0o644)
}

// processorTime is what this process has used so far, garbage collection included.
func processorTime() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func encodeRecord(out []byte, t *tokenizer.Tokenizer, record []byte, special bool) []byte {
	ids := t.Encode(string(record), special)
	out = binary.LittleEndian.AppendUint32(out, uint32(len(ids)))
	for _, id := range ids {
		out = binary.LittleEndian.AppendUint32(out, uint32(id))
	}
	return out
}

func decodeRecord(out []byte, t *tokenizer.Tokenizer, record []byte, special bool) []byte {
	ids := make([]int32, len(record)/4)
	for i := range ids {
		ids[i] = int32(binary.LittleEndian.Uint32(record[4*i:]))
	}
	text := t.Decode(ids, special)
	out = binary.LittleEndian.AppendUint32(out, uint32(len(text)))
	return append(out, text...)
}
