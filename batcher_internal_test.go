package s3sink

import (
	"context"
	"errors"
	"math/rand/v2"
	"net/http"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
	"unsafe"

	"github.com/aws/aws-sdk-go-v2/aws"

	"github.com/s3sink/s3sink/internal/deflate"
)

// A block record is not larger than its charge of spooledBytes: there may be
// very many blocks on disk, also of previous runs.
func TestBlock_SizeIsCharged(t *testing.T) {
	t.Parallel()
	if size := unsafe.Sizeof(block{}); size > spooledBytes {
		t.Errorf("a block takes %d bytes, want at most %d", size, spooledBytes)
	}
}

// keyStore stores every PUT, except for keys that contain denied, and keeps the
// object's metadata, headers and time.
type keyStore struct {
	denied string // keys that contain it get 403; "": none

	mu      sync.Mutex
	keys    []string // "sequence day/events"
	headers []http.Header
	times   []time.Time
}

func (s *keyStore) RoundTrip(r *http.Request) (*http.Response, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.denied != "" && strings.Contains(r.URL.Path, s.denied) {
		return &http.Response{StatusCode: http.StatusForbidden, Header: http.Header{}, Body: http.NoBody, Request: r}, nil
	}
	s.headers, s.times = append(s.headers, r.Header), append(s.times, time.Now())
	meta := func(name string) string { return r.Header.Get("X-Amz-Meta-S3sink-" + name) }
	s.keys = append(s.keys, meta("Sequence")+" "+r.URL.Path[1:4]+meta("Events"))
	return &http.Response{StatusCode: http.StatusOK, Header: stored(), Body: http.NoBody, Request: r}, nil
}

// stored is the header of the answer to a PUT that was stored.
func stored() http.Header { return http.Header{"Etag": {`"e"`}} }

func openInternal(t *testing.T, store http.RoundTripper, change ...func(*Config)) *Sink {
	t.Helper()
	cfg := Config{
		Bucket: "keys", SourceID: "test", Region: "us-east-1", KeyFormat: "{received_day:DD}/{uuid}",
		Credentials: AccessKeys("AKIA", "secret", ""),
		HTTPClient:  &http.Client{Transport: store},
		AWS:         &aws.Config{},
	}
	for _, f := range change {
		f(&cfg)
	}
	sink, err := New(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		sink.Close(t.Context())
		st := sink.Stats()
		if st.Accepted+st.Recovered != st.Delivered+st.Quarantined+st.Dropped || st.Pending != 0 || st.Memory != 0 {
			t.Errorf("books after Close: %+v", st)
		}
	})
	return sink
}

// Given an open object of the day before, when the clock goes back over
// midnight, then later events go to later objects. A step of less than
// clockNoise opens no object.
func TestTrack_ClockGoesBackOverMidnight(t *testing.T) {
	t.Parallel()
	var store keyStore
	sink := openInternal(t, &store)
	midnight := time.Date(2026, 3, 2, 0, 0, 0, 0, time.UTC)
	for _, at := range []time.Duration{-time.Second, time.Second, -time.Second, -time.Hour, -time.Hour, time.Hour} {
		if err := sink.own.add(noWait, []byte(`{}`), midnight.Add(at)); err != nil {
			t.Fatal(err)
		}
	}
	if err := sink.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	slices.Sort(store.keys)
	// The second -1s is noise: the event counts as received after midnight. Then
	// the clock goes back by an hour, and forward again.
	if want := "1 01/1, 2 02/2, 3 01/2, 4 02/1"; strings.Join(store.keys, ", ") != want {
		t.Errorf("objects (sequence day/events) %q, want %q", store.keys, want)
	}
}

// stalled is a store that never answers.
type stalled struct{}

func (stalled) RoundTrip(r *http.Request) (*http.Response, error) {
	<-r.Context().Done()
	return nil, r.Context().Err()
}

// Given a store that does not answer, when the ctx of a Flush ends, then no
// waiter is left.
func TestFlush_CtxEnds(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		sink := openInternal(t, stalled{})
		if err := sink.Track(struct{}{}); err != nil {
			t.Fatal(err)
		}
		for range 10 {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			if err := sink.Flush(ctx); !errors.Is(err, context.DeadlineExceeded) {
				t.Error(err)
			}
			cancel()
		}
		if n := len(sink.batcher.waiters); n != 0 {
			t.Errorf("%d waiters left", n)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := sink.Close(ctx); err == nil {
			t.Error("Close delivered to a store that does not answer")
		}
	})
}

// holdCompression keeps every worker busy until the result is called.
func holdCompression(sink *Sink) (release func()) {
	hold := make(chan struct{})
	for range runtime.GOMAXPROCS(0) {
		sink.batcher.pool.Go(func(*deflate.Encoder) { <-hold })
	}
	return sync.OnceFunc(func() { close(hold) })
}

// noiseLine returns a line of about n bytes that hardly compresses.
func noiseLine(seed, n int) []byte {
	r := rand.New(rand.NewPCG(uint64(seed), 3))
	b := []byte(`{"x":"`)
	for range n {
		b = append(b, byte('A'+r.IntN(26)+32*r.IntN(2)))
	}
	return append(b, `"}`...)
}

// Given busy compressors, then a block is cut at maxBlock. With idle
// compressors it is cut at minBlock.
func TestBlock_GrowsWhileCompressorsAreBusy(t *testing.T) {
	t.Parallel()
	sink := openInternal(t, new(keyStore))
	b := sink.batcher
	release := holdCompression(sink)
	if !b.pool.Busy() || b.full(maxBlock) || !b.full(maxBlock+1) {
		t.Errorf("while all are busy (%t): full at %d is %t, above it %t", b.pool.Busy(), maxBlock, b.full(maxBlock), b.full(maxBlock+1))
	}
	release()
	b.pool.Wait()
	if b.full(minBlock) || !b.full(minBlock+1) {
		t.Errorf("while none is: full at %d is %t, above it %t", minBlock, b.full(minBlock), b.full(minBlock+1))
	}
}

// Given a block that crosses a multiple of MaxObjectEvents, when an object is
// closed by size, then no object has more events than the limit.
func TestMaxObjectEvents_ObjectsClosedBySize(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var store keyStore
		sink := openInternal(t, &store, func(c *Config) {
			c.MaxObjectBytes, c.MaxEventBytes, c.MaxObjectEvents = 100_000, 5000, 100
		})
		track := func(line []byte) {
			if err := sink.TrackLine(line); err != nil {
				t.Fatal(err)
			}
		}
		release := holdCompression(sink)
		for i := range 60 { // more than one object by size
			track(noiseLine(i, 3000))
		}
		for range 90 {
			track([]byte(`{}`))
		}
		release()
		synctest.Wait()
		for range 300 {
			track([]byte(`{}`))
		}
		if err := sink.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
		for _, h := range store.headers {
			if n, err := strconv.Atoi(h.Get("X-Amz-Meta-S3sink-Events")); err != nil || n > 100 {
				t.Errorf("an object of %d events (%v), want 100 at most", n, err)
			}
		}
	})
}

// Given an object that was closed by MaxObjectEvents, then the age of the next
// object counts from its own first event.
func TestMaxObjectAge_AfterFullObject(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var store keyStore
		sink := openInternal(t, &store, func(c *Config) { c.MaxObjectEvents, c.MaxObjectAge = 2, time.Minute })
		began := time.Now()
		track := func() {
			if err := sink.TrackLine([]byte(`{}`)); err != nil {
				t.Fatal(err)
			}
		}
		track()
		time.Sleep(50 * time.Second)
		release := holdCompression(sink)
		track()
		track() // the first event of the next object; a worker has not yet compressed the full one
		release()
		time.Sleep(time.Hour)
		if err := sink.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
		if len(store.times) != 2 || store.times[1].Sub(began) != 110*time.Second {
			t.Errorf("objects at %v, the second wanted a minute after its event", store.times)
		}
	})
}

// Given a clock that goes back, then the metadata has the earliest and the
// latest received time.
func TestMetadata_ReceivedTimesWithClockGoingBack(t *testing.T) {
	t.Parallel()
	var store keyStore
	sink := openInternal(t, &store)
	noon := time.Date(2026, 3, 2, 12, 0, 0, 0, time.UTC)
	for _, at := range []time.Duration{10 * time.Minute, 0, 5 * time.Minute} {
		if err := sink.own.add(noWait, []byte(`{}`), noon.Add(at)); err != nil {
			t.Fatal(err)
		}
	}
	if err := sink.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	first, last := store.headers[0].Get("X-Amz-Meta-S3sink-First-Received"), store.headers[0].Get("X-Amz-Meta-S3sink-Last-Received")
	if first != "2026-03-02T12:00:00.000Z" || last != "2026-03-02T12:10:00.000Z" {
		t.Errorf("received from %s to %s", first, last)
	}
}

// Given memory full of parked segments of one source, when other sources wait
// for memory, then relief seals their objects.
func TestRelief_ParkedSegmentsAreNotFreed(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		sink := openInternal(t, &keyStore{denied: "/denied"}, func(c *Config) {
			c.KeyFormat = "{source}/{uuid}"
			c.MaxMemory, c.MaxEventBytes, c.MaxObjectAge = 2<<20, 100<<10, 24*time.Hour
		})
		denied, err := sink.Source("denied")
		if err != nil {
			t.Fatal(err)
		}
		for i := range 8 {
			if err := denied.TrackLine(noiseLine(i, 60<<10)); err != nil {
				t.Fatal(err)
			}
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := denied.Flush(ctx); err == nil {
			t.Fatal("not refused")
		}
		began := time.Now()
		for i := range 100 {
			src, err := sink.Source("s" + strconv.Itoa(i%5))
			if err != nil {
				t.Fatal(err)
			}
			if err := src.TrackLineContext(t.Context(), noiseLine(i, 60<<10)); err != nil {
				t.Fatal(err)
			}
		}
		if waited := time.Since(began); waited > time.Minute {
			t.Errorf("others waited %v", waited)
		}
		ctx, cancel = context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		sink.Close(ctx)
	})
}

// Given a partition with large blocks in compression and a small segment, when
// memory runs short, then relief seals other partitions.
func TestRelief_IgnoresBlocksInCompression(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var sealed []string
		sink := openInternal(t, new(keyStore), func(c *Config) {
			c.MaxMemory, c.MaxEventBytes = 16<<20, 100<<10
			c.Hooks.Sealed = func(s Sealed) {
				if s.Reason == SealedByMemory {
					sealed = append(sealed, s.Object.Source)
				}
			}
		})
		track := func(source string, line []byte) (taken bool) {
			src, err := sink.Source(source)
			if err != nil {
				t.Error(err)
				return false
			}
			err = src.TrackLine(line)
			synctest.Wait()
			return err == nil
		}
		for i := range 18 { // about 700 kB each, nearly all in segments
			for j := range 9 {
				track("B"+strconv.Itoa(i), noiseLine(i*100+j, 80<<10))
			}
		}
		for i := range 12 {
			track("B"+strconv.Itoa(i), noiseLine(i, 80<<10))
		}
		release := holdCompression(sink)
		for range 14 { // 1.3 MB that compress to nothing, more than any B holds
			track("A", []byte(`{"x":"`+strings.Repeat("y", 90<<10)+`"}`))
		}
		for i := 0; track("B"+strconv.Itoa(i%18), noiseLine(i, 80<<10)); i++ {
			// Until memory is full. Nothing can be compressed.
		}
		release()
		if err := sink.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
		if len(sealed) == 0 || slices.Contains(sealed, "A") {
			t.Errorf("sealed for memory: %v", sealed)
		}
	})
}

// Given ten thousand ids that were used once, when the garbage collector runs,
// then none of their Sources is left.
func TestSources_UnusedIDsAreFreed(t *testing.T) {
	t.Parallel()
	sink := openInternal(t, new(keyStore))
	defer sink.Close(t.Context())
	kept, err := sink.Source("kept")
	if err != nil {
		t.Fatal(err)
	}
	if err := kept.Track(struct{}{}); err != nil { // an open object keeps its Source too
		t.Fatal(err)
	}
	for i := range 10_000 {
		if _, err := sink.Source(strings.Repeat("x", 1+i%200)); err != nil {
			t.Fatal(err)
		}
	}
	for range 2000 {
		runtime.GC()
		runtime.Gosched() // clean-ups run in a goroutine of their own
		sink.sources.mu.Lock()
		n := len(sink.sources.byID)
		sink.sources.mu.Unlock()
		if n == 2 { // "kept" and the Source of the sink itself
			runtime.KeepAlive(kept)
			return
		}
	}
	t.Error("sources stay for ever")
}
