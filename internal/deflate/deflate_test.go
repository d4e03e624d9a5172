package deflate_test

import (
	"bytes"
	"compress/gzip"
	"hash/crc32"
	"io"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"

	"github.com/s3sink/s3sink/internal/deflate"
)

func noise(n int, seed uint64) []byte {
	r := rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8)})
	b := make([]byte, n)
	r.Read(b)
	return b
}

// frame compresses raw in chunks of the given size.
func frame(t testing.TB, level int, raw []byte, chunk int) deflate.Frame {
	t.Helper()
	e, err := deflate.NewEncoder(level)
	if err != nil {
		t.Fatal(err)
	}
	var chunks [][]byte
	for rest := raw; len(rest) > 0; {
		n := min(chunk, len(rest))
		chunks, rest = append(chunks, rest[:n]), rest[n:]
	}
	f, err := e.Frame(chunks)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func TestFramesAreOneGzipMember(t *testing.T) {
	t.Parallel()
	blocks := [][]byte{
		[]byte("{\"a\":1}\n"),
		bytes.Repeat([]byte("{\"event\":\"viewed\"}\n"), 10_000),
		noise(200_000, 1),
		noise(1, 2),
	}
	for level := 1; level <= 9; level++ {
		var raw, object []byte
		var rawCRC, crc uint32
		object = append(object, deflate.Header...)
		for _, b := range blocks {
			f := frame(t, level, b, 4096)
			if want := crc32.ChecksumIEEE(f.Payload); f.CRC != want {
				t.Errorf("level %d: payload CRC %08x, want %08x", level, f.CRC, want)
			}
			rawCRC = deflate.CombineCRC(rawCRC, f.RawCRC, f.Raw)
			crc = deflate.CombineCRC(crc, f.CRC, int64(len(f.Payload)))
			raw = append(raw, b...)
			object = append(object, f.Payload...)
		}
		if want := crc32.ChecksumIEEE(object[len(deflate.Header):]); crc != want {
			t.Errorf("level %d: combined CRC %08x, want %08x", level, crc, want)
		}
		object = append(object, deflate.Trailer(rawCRC, int64(len(raw)))...)

		in := bytes.NewReader(object)
		r, err := gzip.NewReader(in)
		if err != nil {
			t.Fatal(err)
		}
		r.Multistream(false)
		got, err := io.ReadAll(r)
		if err != nil {
			t.Fatalf("level %d: %v", level, err)
		}
		if !bytes.Equal(got, raw) || in.Len() != 0 {
			t.Errorf("level %d: %d bytes back and %d left over, want %d and 0", level, len(got), in.Len(), len(raw))
		}
	}
}

func TestEncoderIsReusable(t *testing.T) {
	t.Parallel()
	e, err := deflate.NewEncoder(5)
	if err != nil {
		t.Fatal(err)
	}
	text := []byte(strings.Repeat("the same block again ", 5000))
	first, err := e.Frame([][]byte{text})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := e.Frame([][]byte{noise(100_000, 3)}); err != nil {
		t.Fatal(err)
	}
	again, err := e.Frame([][]byte{text})
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(first.Payload, again.Payload) {
		t.Error("a block depends on the blocks before it")
	}
}

func TestBoundHoldsForNoise(t *testing.T) {
	t.Parallel()
	for level := 1; level <= 9; level++ {
		for _, n := range []int{0, 1, 2, 127, 128, 4096, 65534, 65535, 65536, 131070, 300_000} {
			got := int64(len(frame(t, level, noise(n, uint64(n)), 1<<14).Payload))
			if bound := deflate.Bound(int64(n)); got > bound {
				t.Errorf("level %d: %d bytes became %d, over the bound of %d", level, n, got, bound)
			}
		}
	}
}

func FuzzBound(f *testing.F) {
	f.Add([]byte("{}\n"), uint8(5), uint16(3))
	f.Add(noise(70_000, 9), uint8(1), uint16(16384))
	f.Fuzz(func(t *testing.T, raw []byte, level uint8, chunk uint16) {
		got := frame(t, 1+int(level)%9, raw, 1+int(chunk))
		if int64(len(got.Payload)) > deflate.Bound(int64(len(raw))) {
			t.Errorf("%d bytes became %d", len(raw), len(got.Payload))
		}
		if got.RawCRC != crc32.ChecksumIEEE(raw) {
			t.Error("wrong CRC of the raw bytes")
		}
	})
}

func TestCombineCRC(t *testing.T) {
	t.Parallel()
	for _, n := range []int{0, 1, 7, 8, 255, 65536, 1_000_003} {
		first, second := noise(100, 4), noise(n, 5)
		want := crc32.ChecksumIEEE(append(bytes.Clone(first), second...))
		if got := deflate.CombineCRC(crc32.ChecksumIEEE(first), crc32.ChecksumIEEE(second), int64(n)); got != want {
			t.Errorf("second of %d bytes: %08x, want %08x", n, got, want)
		}
	}
}

func TestPoolRunsEveryJobOnFewWorkers(t *testing.T) {
	t.Parallel()
	const workers, jobs = 3, 200
	p, err := deflate.NewPool(5, workers)
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	running, most, ran := 0, 0, 0
	hold := make(chan struct{})
	for range jobs {
		p.Go(func(*deflate.Encoder) {
			mu.Lock()
			running++
			most = max(most, running)
			mu.Unlock()
			<-hold
			mu.Lock()
			running--
			ran++
			mu.Unlock()
		})
	}
	if !p.Busy() {
		t.Error("not busy with more jobs than workers")
	}
	close(hold)
	p.Wait()
	if most > workers || ran != jobs {
		t.Errorf("%d at once and %d in all, want at most %d and %d", most, ran, workers, jobs)
	}
	if p.Busy() {
		t.Error("busy without jobs")
	}
}

func TestNewPoolRefusesLevel(t *testing.T) {
	t.Parallel()
	if _, err := deflate.NewPool(10, 1); err == nil {
		t.Error("level 10 accepted")
	}
}
