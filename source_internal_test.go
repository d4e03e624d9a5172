package s3sink

import (
	"context"
	"errors"
	"net/http"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
)

// keyStore takes every PUT and keeps what it says of the object.
type keyStore struct {
	mu   sync.Mutex
	keys []string // "sequence day/events"
}

func (s *keyStore) RoundTrip(r *http.Request) (*http.Response, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	meta := func(name string) string { return r.Header.Get("X-Amz-Meta-S3sink-" + name) }
	s.keys = append(s.keys, meta("Sequence")+" "+r.URL.Path[1:4]+meta("Events"))
	return &http.Response{StatusCode: http.StatusOK, Header: http.Header{}, Body: http.NoBody, Request: r}, nil
}

func openInternal(t *testing.T, store http.RoundTripper) *Sink {
	t.Helper()
	sink, err := New(t.Context(), Config{
		Bucket: "keys", SourceID: "test", Region: "us-east-1", KeyFormat: "{received_day:DD}/{uuid}",
		Credentials: AccessKeys("AKIA", "secret", ""),
		HTTPClient:  &http.Client{Transport: store},
		AWS:         &aws.Config{},
	})
	if err != nil {
		t.Fatal(err)
	}
	return sink
}

// When the clock goes back over midnight, later events go to later objects,
// although an object of their day is open; noise of the clock makes none.
func TestClockGoesBackOverMidnight(t *testing.T) {
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
	// The second -1s is noise: it counts as received after midnight. The
	// clock really goes back by an hour, and forth again.
	if want := "1 01/1, 2 02/2, 3 01/2, 4 02/1"; strings.Join(store.keys, ", ") != want {
		t.Errorf("objects (sequence day/events) %q, want %q", store.keys, want)
	}
}

// stalled is a store that does not answer.
type stalled struct{}

func (stalled) RoundTrip(r *http.Request) (*http.Response, error) {
	<-r.Context().Done()
	return nil, r.Context().Err()
}

// A Flush that is given up leaves nothing behind.
func TestAbandonedFlush(t *testing.T) {
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

// Ids that are seen once leave nothing behind.
func TestSourcesAreForgotten(t *testing.T) {
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
		if n == 2 { // "kept" and the sink's own
			runtime.KeepAlive(kept)
			return
		}
	}
	t.Error("sources stay for ever")
}
