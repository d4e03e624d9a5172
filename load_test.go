package s3sink_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/s3sink/s3sink"
	"github.com/s3sink/s3sink/s3sinktest"
)

// outageStore is a nullStore that is down until up is set.
type outageStore struct {
	nullStore
	up atomic.Bool
}

func (s *outageStore) RoundTrip(r *http.Request) (*http.Response, error) {
	if s.up.Load() {
		return s.nullStore.RoundTrip(r)
	}
	r.Body.Close()
	return &http.Response{StatusCode: http.StatusServiceUnavailable, Header: http.Header{}, Body: http.NoBody, Request: r}, nil
}

// Given S3 that is down and producers on every core, then memory stays within
// MaxMemory, Track returns at once with or without room, TrackContext waits,
// and every accepted event is delivered when S3 is back. `go test -v -run
// TestFullSpeed_S3Down` prints the memory that the process needs in addition.
func TestFullSpeed_S3Down(t *testing.T) {
	t.Parallel()
	const producers, sources = 8, 5
	store := new(outageStore)
	cfg := store.config()
	cfg.HTTPClient.Transport = store
	calls := 40_000
	cfg.MaxMemory = 32 << 20
	if raceEnabled { // the race detector makes each call thirty times slower
		calls, cfg.MaxMemory = 4_000, 8<<20
	}
	sink := open(t, cfg)
	lines := make([][]byte, 256)
	random := rand.New(rand.NewPCG(4, 4))
	for i := range lines {
		lines[i] = []byte(`{"x":"` + hex(random, 200+random.IntN(2000)) + `"}`)
	}
	var took, full atomic.Int64
	var each []*s3sink.Source
	for i := range sources {
		src, err := sink.Source(fmt.Sprint("source-", i))
		if err != nil {
			t.Fatal(err)
		}
		each = append(each, src)
	}
	began := time.Now()
	var wg sync.WaitGroup
	for p := range producers {
		wg.Go(func() {
			for n := range calls {
				switch err := each[(p+n)%sources].TrackLine(lines[(p*n)%len(lines)]); {
				case err == nil:
					took.Add(1)
				case errors.Is(err, s3sink.ErrBufferFull):
					full.Add(1)
				default:
					t.Error(err)
					return
				}
				if n%1000 == 0 {
					if st := sink.Stats(); st.Memory > cfg.MaxMemory || st.MemoryPeak > cfg.MaxMemory {
						t.Errorf("%d bytes in use, %d at most, of %d", st.Memory, st.MemoryPeak, cfg.MaxMemory)
					}
				}
			}
		})
	}
	wg.Wait()
	var heap runtime.MemStats
	runtime.ReadMemStats(&heap)
	st := sink.Stats()
	t.Logf("%d calls in %v: %d taken, %d refused; MaxMemory %.1f MiB, peak %.1f, heap in use %.1f, resident at most %s",
		producers*calls, time.Since(began).Round(time.Millisecond), took.Load(), full.Load(), mib(cfg.MaxMemory), mib(st.MemoryPeak), mib(int64(heap.HeapInuse)), resident())
	if full.Load() == 0 || st.MemoryPeak < cfg.MaxMemory/2 {
		t.Errorf("%d refused with a peak of %d: the memory was never full", full.Load(), st.MemoryPeak)
	}

	var waited sync.WaitGroup
	for range producers {
		waited.Go(func() {
			if err := sink.TrackLineContext(t.Context(), lines[1]); err != nil {
				t.Error(err)
			}
		})
	}
	store.up.Store(true)
	waited.Wait()
	mustClose(t, sink)
	if got, want := store.events.Load(), took.Load()+producers; got != want || sink.Stats().MemoryPeak > cfg.MaxMemory {
		t.Errorf("%d events are stored of %d, peak %d", got, want, sink.Stats().MemoryPeak)
	}
}

func mib(n int64) float64 { return float64(n) / (1 << 20) }

// resident returns the peak resident memory of the process, on systems that
// report it.
func resident() string {
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return "unknown"
	}
	_, rest, _ := strings.Cut(string(status), "VmHWM:")
	line, _, _ := strings.Cut(rest, "\n")
	return strings.TrimSpace(line)
}

// Given a very large number of source ids, then memory and open objects stay
// within the Config, and every event is stored.
func TestSources_ManyIDs(t *testing.T) {
	t.Parallel()
	ids := 100_000
	if testing.Short() || raceEnabled { // one object per source: two minutes with the race detector
		ids = 5_000
	}
	store := new(nullStore)
	cfg := store.config()
	cfg.MaxOpenPartitions = 500
	cfg.MaxMemory = 8 << 20
	sink := open(t, cfg)
	var wg sync.WaitGroup
	for p := range 4 {
		wg.Go(func() {
			for i := p; i < ids; i += 4 {
				src, err := sink.Source(fmt.Sprint("../", i, "\n"))
				if err == nil {
					err = src.TrackContext(t.Context(), struct{}{})
				}
				if err != nil {
					t.Error(err)
					return
				}
				if i%1000 == 0 {
					if st := sink.Stats(); st.OpenPartitions > cfg.MaxOpenPartitions+4 { // each caller may briefly exceed the limit by one
						t.Errorf("%d partitions are open", st.OpenPartitions)
					}
				}
			}
		})
	}
	wg.Wait()
	mustClose(t, sink)
	st := sink.Stats()
	if n := store.events.Load(); n != int64(ids) || store.objects.Load() != int64(ids) || st.MemoryPeak > cfg.MaxMemory {
		t.Errorf("%d events in %d objects for %d ids: %+v", n, store.objects.Load(), ids, st)
	}
}

// Given a thousand callers of Flush, then they share one object; a thousand
// callers of Close share one shutdown.
func TestFlush_ManyConcurrentCallers(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T, server *s3sinktest.Server, cfg s3sink.Config) {
		server.Inject(s3sinktest.Fault{Operation: "PutObject", Delay: time.Second})
		sink := open(t, cfg)
		herd := func(f func() error) {
			began := time.Now()
			var wg sync.WaitGroup
			for range 1000 {
				wg.Go(func() {
					if err := f(); err != nil {
						t.Error(err)
					}
				})
			}
			wg.Wait()
			if waited := time.Since(began); waited != time.Second {
				t.Errorf("waited %v, want one PUT of 1s", waited)
			}
		}
		mustTrack(t, sink, struct{}{})
		herd(func() error { return sink.Flush(t.Context()) })
		mustTrack(t, sink, struct{}{})
		herd(func() error { return sink.Close(t.Context()) })
		if n := server.StoredPuts(); n != 2 {
			t.Errorf("%d objects, want 2", n)
		}
	})
}

// Given hooks that call every method of the sink except Close, then nothing
// blocks.
func TestHooks_CallTheSink(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T, server *s3sinktest.Server, cfg s3sink.Config) {
		var sink *s3sink.Sink
		calls := 0
		again := func() {
			if calls++; calls > 50 {
				return
			}
			src, err := sink.Source("hooks")
			if err != nil {
				t.Error(err)
			}
			mustTrack(t, src, struct{}{})
			mustFlush(t, src)
			sink.Stats()
			sink.Err()
		}
		cfg.Hooks = s3sink.Hooks{
			Sealed:   func(s3sink.Sealed) { again() },
			Attempt:  func(s3sink.Attempt) { again() },
			Uploaded: func(s3sink.Uploaded) { again() },
			Parked:   func(s3sink.Parked) { again() },
		}
		sink = open(t, cfg)
		mustTrack(t, sink, struct{}{})
		mustFlush(t, sink)
		time.Sleep(time.Hour)
		mustClose(t, sink)
		if n := len(lines(t, server, s3sinktest.Bucket)); n != 51 {
			t.Errorf("%d events are stored, want 51", n)
		}
	})
}
