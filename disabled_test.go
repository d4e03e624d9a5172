package s3sink_test

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/s3sink/s3sink"
	"github.com/s3sink/s3sink/s3sinktest"
)

// Given a disabled sink, then events are checked and counted, and nothing else
// happens.
func TestDisabled(t *testing.T) {
	t.Parallel()
	server, cfg := s3sinktest.New(t)
	var log strings.Builder
	cfg.Logger = slog.New(slog.NewTextHandler(&log, nil))
	cfg.Disabled = true
	cfg.Hooks.Sealed = func(s3sink.Sealed) { t.Error("a hook was called") }
	sink := open(t, cfg)
	other, err := sink.Source("other")
	if err != nil {
		t.Fatal(err)
	}
	mustTrack(t, sink, map[string]any{"n": 1})
	mustTrack(t, other, s3sink.Event{Type: s3sink.TypeTrack, UserID: "u", Event: "e"})
	if err := sink.TrackLine([]byte(`{"n":2}`)); err != nil {
		t.Fatal(err)
	}
	if err := sink.TrackContext(t.Context(), map[string]any{"n": 3}); err != nil {
		t.Fatal(err)
	}

	var wrong *s3sink.EventError
	for _, bad := range []any{7, func() {}, []byte("{"), s3sink.Event{Type: "nope"}} {
		if err := sink.Track(bad); !errors.As(err, &wrong) {
			t.Errorf("Track(%v): %v, want an EventError", bad, err)
		}
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if err := sink.TrackContext(ended, struct{}{}); !errors.Is(err, context.Canceled) {
		t.Errorf("an ended context: %v", err)
	}

	want := s3sink.Stats{Accepted: 4, Dropped: 4, Rejected: 5}
	if got := sink.Stats(); got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
	if err := errors.Join(sink.Flush(t.Context()), other.Flush(ended), sink.Err()); err != nil {
		t.Errorf("Flush or Err: %v", err)
	}
	if err := sink.Close(ended); err != nil {
		t.Errorf("Close: %v, want nil: nothing was to be delivered", err)
	}
	for _, err := range []error{sink.Track(struct{}{}), sink.TrackLine([]byte("{}")), other.TrackContext(t.Context(), struct{}{}), sink.Validate(t.Context())} {
		if !errors.Is(err, s3sink.ErrClosed) {
			t.Errorf("after Close: %v, want ErrClosed", err)
		}
	}
	if err := sink.Flush(t.Context()); err != nil {
		t.Errorf("Flush after Close: %v", err)
	}
	want.Rejected += 3
	if got := sink.Stats(); got != want {
		t.Errorf("after Close: %+v, want %+v", got, want)
	}
	if n := len(server.Requests()); n != 0 {
		t.Errorf("%d requests were made", n)
	}
	if !strings.Contains(log.String(), "disabled") || !strings.Contains(log.String(), "level=WARN") {
		t.Errorf("nobody was told: %s", log.String())
	}
}

// Given a disabled sink, when a day passes, then no timer fires.
func TestDisabled_NoTimers(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T, server *s3sinktest.Server, cfg s3sink.Config) {
		cfg.Disabled = true
		sink := open(t, cfg)
		for range 1000 {
			mustTrack(t, sink, struct{}{})
		}
		time.Sleep(48 * time.Hour)
		if st := sink.Stats(); st != (s3sink.Stats{Accepted: 1000, Dropped: 1000}) {
			t.Errorf("%+v", st)
		}
		if n := len(server.Requests()); n != 0 {
			t.Errorf("%d requests were made", n)
		}
	})
}

// Given a disabled sink, then Validate checks the bucket.
func TestDisabled_Validate(t *testing.T) {
	t.Parallel()
	server, cfg := s3sinktest.New(t)
	cfg.Disabled = true
	sink := open(t, cfg)
	if err := sink.Validate(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n := len(server.Objects(s3sinktest.Bucket)); n != 1 {
		t.Errorf("%d objects, want the dummy object", n)
	}
	cfg.Bucket = "no-such-bucket"
	sink = open(t, cfg)
	var invalid *s3sink.ValidationError
	if err := sink.Validate(t.Context()); !errors.As(err, &invalid) {
		t.Errorf("no bucket: %v", err)
	}
	cfg.Bucket = "Bad Bucket"
	var wrong *s3sink.ConfigError
	if _, err := s3sink.New(t.Context(), cfg); !errors.As(err, &wrong) {
		t.Errorf("a bad Config: %v", err)
	}
}

// Given concurrent callers, then no event is taken after Close, and the counts
// balance at every moment.
func TestDisabled_Concurrent(t *testing.T) {
	t.Parallel()
	cfg := new(nullStore).config()
	cfg.Disabled = true
	sink := open(t, cfg)
	var taken, refused int64
	var mu sync.Mutex
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			var ok, closed int64
			for closed == 0 {
				switch err := sink.TrackLine([]byte(`{"a":1}`)); {
				case err == nil:
					ok++
				case errors.Is(err, s3sink.ErrClosed):
					closed++
				default:
					t.Error(err)
					return
				}
			}
			mu.Lock()
			defer mu.Unlock()
			taken, refused = taken+ok, refused+closed
		})
	}
	for sink.Stats().Accepted < 10_000 {
		checkBooks(t, sink)
		if err := sink.Flush(t.Context()); err != nil {
			t.Error(err)
		}
	}
	for range 2 {
		wg.Go(func() {
			if err := sink.Close(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
	mustClose(t, sink)
	after := sink.Stats()
	wg.Wait()
	if st := sink.Stats(); st.Accepted != taken || st.Dropped != taken || st.Accepted != after.Accepted || st.Rejected != refused {
		t.Errorf("%+v when closed and %+v at the end; %d calls succeeded, %d did not", after, st, taken, refused)
	}
}

func TestDisabledAllocatesNothing(t *testing.T) {
	cfg := new(nullStore).config()
	cfg.Disabled = true
	sink := open(t, cfg)
	line := []byte(`{"event":"Signed Up","userId":"u-1"}`)
	if n := testing.AllocsPerRun(1000, func() { sink.TrackLine(line) }); n != 0 {
		t.Errorf("%v allocations for each TrackLine, want none", n)
	}
}
