package launch

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"time"
)

// cut writes in as one stream in pieces of the given sizes, over and over, and gives what came out.
func cut(in []byte, prefix string, period time.Duration, sizes ...byte) (out, file string, l *lines) {
	var o, f bytes.Buffer
	l = &lines{sink: &sink{w: &o}, prefix: prefix, period: period, file: &f}
	for i := 0; len(in) > 0; i++ {
		n := len(in)
		if len(sizes) > 0 {
			n = min(n, int(sizes[i%len(sizes)])+1)
		}
		l.Write(in[:n])
		in = in[n:]
	}
	l.close()
	return o.String(), f.String(), l
}

func TestLinesGetTheirPrefix(t *testing.T) {
	for _, c := range []struct{ in, want string }{
		{"", ""},
		{"a\nb\n", "[0] a\n[0] b\n"},
		{"a\n\nb", "[0] a\n[0] \n[0] b\n"},
		{"a\r\nb\r\n", "[0] a\n[0] b\n"},
		{"10%\r20%\r30%\rend\n", "[0] 10%\n[0] 20%\n[0] 30%\n[0] end\n"},
		{"\r10%\r20%\n", "[0] 10%\n[0] 20%\n"},
		{"10%\r20%\r", "[0] 10%\n[0] 20%\n"},
		{"10%\r\r\n", "[0] 10%\n[0] \n"},
	} {
		if got, file, _ := cut([]byte(c.in), "[0] ", 0); got != c.want || file != c.in {
			t.Errorf("%q: got %q, want %q; file %q", c.in, got, c.want, file)
		}
	}
}

func TestProgressIsThinnedOutButItsLastStateIsShown(t *testing.T) {
	for _, c := range []struct{ in, want string }{
		{"1%\r2%\r3%\r4%\r", "[0] 1%\n[0] 4%\n"},
		{"1%\r2%\r3%\r\n", "[0] 1%\n[0] 3%\n"},
		{"1%\r2%\r3%\r\r\nx\n", "[0] 1%\n[0] 3%\n[0] x\n"},
		{"1%\r2%\rdone\n", "[0] 1%\n[0] done\n"},
		{"1%\r2%\r3%\r\r", "[0] 1%\n[0] 3%\n"},
	} {
		if got, _, _ := cut([]byte(c.in), "[0] ", time.Hour); got != c.want {
			t.Errorf("%q: got %q, want %q", c.in, got, c.want)
		}
	}
}

func TestALongLineComesInPiecesAndTakesLittleMemory(t *testing.T) {
	in := bytes.Repeat([]byte("0123456789"), 200_000)
	out, file, l := cut(in, "[0] ", 0)
	if file != string(in) {
		t.Error("the file differs from what was written")
	}
	var joined strings.Builder
	for line := range strings.Lines(out) {
		s, ok := strings.CutPrefix(line, "[0] ")
		if len(s) > maxLine+1 || !ok {
			t.Fatalf("a piece of %d bytes", len(s))
		}
		joined.WriteString(strings.TrimSuffix(s, "\n"))
	}
	if joined.String() != string(in) {
		t.Error("the pieces do not make up the line")
	}
	if cap(l.pending) > 4*maxLine {
		t.Errorf("%d bytes are held", cap(l.pending))
	}
	if n := len(l.tail[0]); n > tailLine {
		t.Errorf("the tail holds a line of %d bytes", n)
	}
}

func TestTheTailHoldsTheLastLinesThatSaySomething(t *testing.T) {
	var in strings.Builder
	for i := range 50 {
		fmt.Fprintf(&in, "line %d\n\n", i)
	}
	_, _, l := cut([]byte(in.String()), "", 0)
	if len(l.tail) != tailLen || l.tail[0] != "line 30" || l.tail[tailLen-1] != "line 49" {
		t.Errorf("tail %q", l.tail)
	}
}

// However a stream is cut into writes, the same comes out; without a prefix the very same bytes.
func FuzzOutputDoesNotDependOnHowItIsWritten(f *testing.F) {
	f.Add([]byte("a\r\nb\rc\n\n\rd"), []byte{0})
	f.Add([]byte("\r\r\n\n\r"), []byte{1, 0, 2})
	f.Add(append(bytes.Repeat([]byte("x"), maxLine), "\r\ny"...), []byte{200, 3})
	f.Add(append(bytes.Repeat([]byte("x"), maxLine+1), '\n'), []byte{255})
	f.Fuzz(func(t *testing.T, in, sizes []byte) {
		whole, _, _ := cut(in, "> ", 0)
		if pieces, file, _ := cut(in, "> ", 0, sizes...); pieces != whole || file != string(in) {
			t.Errorf("%q in pieces %v: %q, whole: %q", in, sizes, pieces, whole)
		}
		if raw, _, _ := cut(in, "", 0, sizes...); raw != string(in) {
			t.Errorf("%q in pieces %v without a prefix: %q", in, sizes, raw)
		}
	})
}
