package s3sink_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/s3sink/s3sink"
	"github.com/s3sink/s3sink/s3sinktest"
)

// Given S3 that is down and producers at full speed, then memory stays within
// MaxMemory, every call returns the outcome of its event, and every accepted
// event is delivered when S3 is back.
func TestMaxMemory_S3Down(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T, server *s3sinktest.Server, cfg s3sink.Config) {
		cfg.MaxMemory = 2 << 20
		cfg.MaxEventBytes = 64 << 10
		sink := open(t, cfg)
		server.Inject(s3sinktest.Fault{Operation: "PutObject", Status: 503, Code: "SlowDown"})
		var took, full int
		r := rand.New(rand.NewPCG(9, 10))
		for i := 0; full < 1000; i++ {
			src, err := sink.Source(fmt.Sprint("source-", i%10))
			if err != nil {
				t.Fatal(err)
			}
			switch err := src.TrackLine([]byte(`{"x":"` + hex(r, 100+r.IntN(2000)) + `"}`)); {
			case err == nil:
				took++
			case errors.Is(err, s3sink.ErrBufferFull) && s3sink.Retryable(err):
				full++
				time.Sleep(time.Second)
			default:
				t.Fatal(err)
			}
			checkBooks(t, sink)
		}
		st := sink.Stats()
		if st.MemoryPeak > cfg.MaxMemory || st.Pending != int64(took) || st.Rejected != int64(full) {
			t.Errorf("took %d, full %d: %+v", took, full, st)
		}
		if took < 1000 { // 1 kB each, halved by compression
			t.Errorf("only %d events fit into %d bytes", took, cfg.MaxMemory)
		}
		server.ClearFaults()
		mustClose(t, sink)
		if got := len(lines(t, server, s3sinktest.Bucket)); got != took {
			t.Errorf("%d stored of %d", got, took)
		}
	})
}

// Given full memory, so that Track refuses events, then TrackContext waits, and
// gets room when S3 is back.
func TestTrackContext_WaitsForRoom(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T, server *s3sinktest.Server, cfg s3sink.Config) {
		cfg.MaxMemory = 1 << 20
		cfg.MaxEventBytes = 100 << 10
		sink := open(t, cfg)
		server.Inject(s3sinktest.Fault{Operation: "PutObject", Status: 503, Code: "SlowDown"})
		r := rand.New(rand.NewPCG(11, 12))
		event := func() map[string]string { return map[string]string{"x": hex(r, 90<<10)} }
		took := int64(0)
		for {
			err := sink.Track(event())
			if errors.Is(err, s3sink.ErrBufferFull) {
				synctest.Wait() // until all full blocks are compressed
				if err = sink.Track(event()); errors.Is(err, s3sink.ErrBufferFull) {
					break
				}
			}
			if err != nil {
				t.Fatal(err)
			}
			took++
		}
		cause := errors.New("no time left")
		ctx, cancel := context.WithTimeoutCause(t.Context(), time.Minute, cause)
		defer cancel()
		if err := sink.TrackContext(ctx, event()); !errors.Is(err, cause) {
			t.Errorf("got %v, want the context's cause", err)
		}
		var wg sync.WaitGroup
		for range 20 {
			e := event()
			wg.Go(func() {
				if err := sink.TrackContext(t.Context(), e); err != nil {
					t.Error(err)
				}
			})
		}
		time.Sleep(time.Minute)
		server.ClearFaults()
		wg.Wait()
		mustClose(t, sink)
		if got := int64(len(lines(t, server, s3sinktest.Bucket))); got != took+20 {
			t.Errorf("%d stored, want %d", got, took+20)
		}
	})
}

// Given memory full of open objects, when producers wait, then the largest
// objects are closed before any timer.
func TestRelief_SealsOpenObjects(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T, server *s3sinktest.Server, cfg s3sink.Config) {
		cfg.MaxMemory = 1 << 20
		cfg.MaxEventBytes = 4 << 10
		cfg.MaxObjectAge = 24 * time.Hour
		var mu sync.Mutex
		reasons := map[s3sink.SealReason]int{}
		cfg.Hooks.Sealed = func(s s3sink.Sealed) {
			mu.Lock()
			defer mu.Unlock()
			reasons[s.Reason]++
		}
		sink := open(t, cfg)
		began := time.Now()
		for i := range 5000 {
			src, err := sink.Source(fmt.Sprint(i % 300)) // 300 chunks of 4 KiB exceed MaxMemory
			if err != nil {
				t.Fatal(err)
			}
			if err := src.TrackContext(t.Context(), map[string]string{"x": strings.Repeat("y", i%3000)}); err != nil {
				t.Fatal(err)
			}
		}
		if waited := time.Since(began); waited > time.Minute {
			t.Errorf("producers waited %v", waited)
		}
		mustClose(t, sink)
		mu.Lock()
		defer mu.Unlock()
		if reasons[s3sink.SealedByMemory] == 0 || reasons[s3sink.SealedByAge] != 0 {
			t.Errorf("sealed by %v", reasons)
		}
		if got := len(lines(t, server, s3sinktest.Bucket)); got != 5000 {
			t.Errorf("%d stored of 5000", got)
		}
	})
}

// Given more waiting callers than one pass of relief can serve, or blocks that
// do not compress, then no caller waits for a timer.
func TestRelief_RepeatsUntilThereIsRoom(t *testing.T) {
	t.Parallel()
	for name, run := range map[string]func(*testing.T, *s3sink.Sink){
		"many at once": func(t *testing.T, sink *s3sink.Sink) {
			var wg sync.WaitGroup
			for i := range 600 { // more first chunks than there is room
				wg.Go(func() {
					src, err := sink.Source(fmt.Sprint(i))
					if err != nil {
						t.Error(err)
						return
					}
					if err := src.TrackContext(t.Context(), struct{}{}); err != nil {
						t.Error(err)
					}
				})
			}
			wg.Wait()
		},
		"noise": func(t *testing.T, sink *s3sink.Sink) {
			for i := range 40 {
				if err := sink.TrackLineContext(t.Context(), noise(uint64(i), 190<<10)); err != nil {
					t.Error(err)
				}
			}
		},
	} {
		bubble(t, func(t *testing.T, server *s3sinktest.Server, cfg s3sink.Config) {
			cfg.MaxMemory = 1 << 20
			cfg.MaxEventBytes = 200 << 10
			cfg.MaxObjectAge = 24 * time.Hour
			sink := open(t, cfg)
			began := time.Now()
			run(t, sink)
			if waited := time.Since(began); waited > time.Minute {
				t.Errorf("%s: producers waited %v", name, waited)
			}
			mustClose(t, sink)
		})
	}
}

// noise returns a line of n bytes that hardly compresses.
func noise(seed uint64, n int) []byte {
	r := rand.New(rand.NewPCG(seed, 4))
	line := []byte(`{"x":"` + randomID(r, n-len(`{"x":""}`)) + `"}`)
	return line
}

// When memory runs short, then relief seals the largest object, and no other.
func TestRelief_SealsLargestOnly(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T, server *s3sinktest.Server, cfg s3sink.Config) {
		cfg.MaxMemory = 16 << 20
		cfg.MaxEventBytes = 100 << 10
		var sealed []string
		cfg.Hooks.Sealed = func(s s3sink.Sealed) {
			if s.Reason == s3sink.SealedByMemory {
				sealed = append(sealed, s.Object.Source)
			}
		}
		sink := open(t, cfg)
		server.Inject(s3sinktest.Fault{Operation: "PutObject", Status: 503}) // sealed objects stay in memory
		for i := range 180 {
			for source, n := range map[string]int{"large": 60 << 10, "middle": 20 << 10, "small": 5 << 10} {
				src, err := sink.Source(source)
				if err != nil {
					t.Fatal(err)
				}
				if err := src.TrackLine(noise(uint64(i), n)); err != nil {
					t.Fatal(err)
				}
			}
			synctest.Wait()
		}
		server.ClearFaults()
		mustClose(t, sink)
		// The events, about 15.7 MB, exceed seven eighths of MaxMemory, but not
		// all of it. The object of large has more than the eighth that relief
		// must free.
		if fmt.Sprint(sealed) != "[large]" {
			t.Errorf("sealed %v, want only large", sealed)
		}
	})
}

// Given an object in upload that uses most of the memory, when producers wait
// repeatedly, then no object is closed before it is full.
func TestRelief_NotDuringUpload(t *testing.T) {
	t.Parallel()
	cfg := new(nullStore).config()
	cfg.MaxMemory = 4 << 20
	cfg.MaxEventBytes = 10 << 10
	cfg.MaxObjectBytes = 2_500_000
	var sizes []int64
	cfg.Hooks.Sealed = func(s s3sink.Sealed) {
		if s.Reason != s3sink.SealedByClose {
			sizes = append(sizes, s.Object.Bytes)
		}
	}
	sink := open(t, cfg)
	var wg sync.WaitGroup
	for w := range 4 {
		wg.Go(func() {
			for n := range 4000 {
				if err := sink.TrackLineContext(t.Context(), noise(uint64(w*4000+n), 3000)); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	mustClose(t, sink)
	if len(sizes) < 15 {
		t.Errorf("only %d objects", len(sizes))
	}
	for _, n := range sizes {
		if n < 2_250_000 {
			t.Errorf("objects of %v bytes", sizes)
			break
		}
	}
}

// Given a compressed block, then memory counts its compressed bytes.
func TestMaxMemory_CountsCompressedBytes(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T, server *s3sinktest.Server, cfg s3sink.Config) {
		sink := open(t, cfg)
		for range 10_000 { // 10 MB that compress to nearly nothing
			mustTrack(t, sink, map[string]string{"x": strings.Repeat("y", 1000)})
		}
		synctest.Wait()
		if st := sink.Stats(); st.Memory > 2<<20 {
			t.Errorf("%d bytes of memory for 10,000 events that compress to nearly nothing", st.Memory)
		}
		mustClose(t, sink)
	})
}

// When one partition more than MaxOpenPartitions opens, then the partition that
// was opened first is closed.
func TestMaxOpenPartitions(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T, server *s3sinktest.Server, cfg s3sink.Config) {
		cfg.MaxOpenPartitions = 3
		sink := open(t, cfg)
		for i := range 10 {
			src, err := sink.Source(fmt.Sprint("s", i))
			if err != nil {
				t.Fatal(err)
			}
			mustTrack(t, src, struct{}{})
			if n := sink.Stats().OpenPartitions; n > 3 {
				t.Fatalf("%d open", n)
			}
		}
		synctest.Wait()
		var got []string
		for _, o := range objects(t, server, s3sinktest.Bucket) {
			got = append(got, strings.Split(o.Key, "/")[1])
		}
		slices.Sort(got) // blocks of different sources are compressed in any order
		if want := "[s0 s1 s2 s3 s4 s5 s6]"; fmt.Sprint(got) != want {
			t.Errorf("stored %v, want %v", got, want)
		}
		mustClose(t, sink)
	})
}

// Given partitions that open concurrently, then the bound holds.
func TestMaxOpenPartitions_Concurrent(t *testing.T) {
	t.Parallel()
	cfg := new(nullStore).config()
	cfg.MaxOpenPartitions = 3
	sink := open(t, cfg)
	var wg sync.WaitGroup
	for w := range 32 {
		wg.Go(func() {
			for n := range 300 {
				src, err := sink.Source(fmt.Sprint(w, "-", n))
				if err != nil {
					t.Error(err)
					return
				}
				if err := src.TrackContext(t.Context(), struct{}{}); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	if n := sink.Stats().OpenPartitions; n > 3 {
		t.Errorf("%d open, want 3 at most", n)
	}
	mustClose(t, sink)
}

// Given 64 goroutines over 10,000 sources, then memory stays within MaxMemory.
func TestMaxMemory_ManySources(t *testing.T) {
	t.Parallel()
	var store nullStore
	cfg := store.config()
	cfg.MaxMemory = 64 << 20
	sink := open(t, cfg)
	const sources, workers, each = 10_000, 64, 1000
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			for n := range each {
				src, err := sink.Source(fmt.Sprint("s", (w*each+n*7)%sources))
				if err != nil {
					t.Error(err)
					return
				}
				if err := src.TrackContext(t.Context(), numbered{Worker: w, N: n}); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	if st := sink.Stats(); st.OpenPartitions != sources || st.Delivered != 0 {
		t.Errorf("%d partitions open and %d events delivered before Close, want %d and 0", st.OpenPartitions, st.Delivered, sources)
	}
	mustClose(t, sink)
	if st := sink.Stats(); st.MemoryPeak > cfg.MaxMemory || st.Objects != sources {
		t.Errorf("memory peaked at %d of %d; %d objects, want %d", st.MemoryPeak, cfg.MaxMemory, st.Objects, sources)
	}
	t.Logf("%d partitions open at once; memory peaked at %d bytes, %d are allowed", sources, sink.Stats().MemoryPeak, cfg.MaxMemory)
	if got := store.events.Load(); got != workers*each {
		t.Errorf("%d events stored, want %d", got, workers*each)
	}
}
