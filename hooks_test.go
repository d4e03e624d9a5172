package s3sink_test

import (
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/s3sink/s3sink"
	"github.com/s3sink/s3sink/s3sinktest"
)

func TestHooks(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T, server *s3sinktest.Server, cfg s3sink.Config) {
		var calls []string
		var got s3sink.Uploaded
		var sink *s3sink.Sink
		cfg.Hooks = s3sink.Hooks{
			Sealed: func(s s3sink.Sealed) {
				calls = append(calls, "sealed by "+s.Reason.String())
				if err := sink.Track(struct{}{}); err != nil && !errors.Is(err, s3sink.ErrClosed) { // a hook may call the sink
					t.Error(err)
				}
			},
			Attempt:  func(a s3sink.Attempt) { calls = append(calls, fmt.Sprintf("attempt %d: %t", a.Number, a.Err == nil)) },
			Parked:   func(p s3sink.Parked) { calls = append(calls, "parked: "+p.Err.Code) },
			Uploaded: func(u s3sink.Uploaded) { calls = append(calls, "uploaded"); got = u },
		}
		sink = open(t, cfg)
		server.Inject(s3sinktest.Fault{Operation: "PutObject", Status: 503, Code: "SlowDown", Times: 1})
		server.Inject(s3sinktest.Fault{Operation: "PutObject", Status: 403, Code: "AccessDenied", Times: 1})
		mustTrack(t, sink, struct{}{})
		time.Sleep(5 * time.Minute) // sealed by age
		time.Sleep(5 * time.Minute) // probed
		synctest.Wait()
		want := []string{"sealed by age", "attempt 1: false", "attempt 2: false", "parked: AccessDenied"}
		if len(calls) < len(want) || !slices.Equal(calls[:len(want)], want) {
			t.Errorf("calls %q, want %q first", calls, want)
		}
		mustClose(t, sink)
		o, ok := server.Object(s3sinktest.Bucket, got.Object.Key)
		if !ok || got.Object.Bytes != int64(len(o.Body)) || got.ETag != o.ETag || got.Object.Events != 1 || got.Object.Source != s3sinktest.SourceID {
			t.Errorf("uploaded %+v, stored %+v", got, o)
		}
	})
}

// Given a hook that does not return, then events and uploads continue, and
// skipped calls are counted.
func TestHooks_SlowHook(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T, server *s3sinktest.Server, cfg s3sink.Config) {
		release := make(chan struct{})
		cfg.Hooks.Uploaded = func(s3sink.Uploaded) { <-release }
		cfg.MaxObjectEvents = 1
		sink := open(t, cfg)
		const events = 1500
		for range events {
			if err := sink.TrackContext(t.Context(), struct{}{}); err != nil {
				t.Fatal(err)
			}
		}
		mustClose(t, sink)
		close(release)
		synctest.Wait()
		if st := sink.Stats(); st.Delivered != events || st.MissedHooks != events-1025 {
			t.Errorf("%d delivered and %d calls missed, want %d and %d", st.Delivered, st.MissedHooks, events, events-1025)
		}
	})
}

// Given a hook that panics or ends its goroutine, then the log has the panic,
// and the next call is made.
func TestHooks_Panic(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T, server *s3sinktest.Server, cfg s3sink.Config) {
		var log strings.Builder
		cfg.Logger = slog.New(slog.NewTextHandler(&log, nil))
		uploaded := 0
		cfg.Hooks.Sealed = func(s3sink.Sealed) { panic("user bug") }
		cfg.Hooks.Attempt = func(s3sink.Attempt) { runtime.Goexit() }
		cfg.Hooks.Uploaded = func(s3sink.Uploaded) { uploaded++ }
		sink := open(t, cfg)
		for range 3 {
			mustTrack(t, sink, struct{}{})
			mustFlush(t, sink)
		}
		mustClose(t, sink)
		if uploaded != 3 || strings.Count(log.String(), "user bug") != 3 {
			t.Errorf("%d calls after those that panicked; log %s", uploaded, log.String())
		}
	})
}

// The hooks of one object are called in the order of its state changes.
func TestHooks_Order(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T, server *s3sinktest.Server, cfg s3sink.Config) {
		cfg.MaxObjectEvents = 1
		seen := map[string]string{}
		note := func(o s3sink.ObjectInfo, what string) { seen[o.Key] += what }
		cfg.Hooks.Sealed = func(s s3sink.Sealed) { note(s.Object, "sealed ") }
		cfg.Hooks.Attempt = func(a s3sink.Attempt) { note(a.Object, "attempt ") }
		cfg.Hooks.Uploaded = func(u s3sink.Uploaded) { note(u.Object, "uploaded") }
		sink := open(t, cfg)
		for i := range 300 {
			src, err := sink.Source(fmt.Sprint(i % 30))
			if err != nil {
				t.Fatal(err)
			}
			if err := src.TrackContext(t.Context(), struct{}{}); err != nil {
				t.Fatal(err)
			}
		}
		mustClose(t, sink)
		for key, what := range seen {
			if what != "sealed attempt uploaded" {
				t.Errorf("%s: %s", key, what)
			}
		}
		if len(seen) != 300 {
			t.Errorf("%d objects, want 300", len(seen))
		}
	})
}

// Given parked uploads, then the log has one warning per RetryParked.
func TestParked_LoggedOncePerInterval(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T, server *s3sinktest.Server, cfg s3sink.Config) {
		var log strings.Builder
		cfg.Logger = slog.New(slog.NewTextHandler(&log, nil))
		cfg.MaxObjectEvents = 1
		sink := open(t, cfg)
		server.Inject(s3sinktest.Fault{Operation: "PutObject", Status: 403, Code: "AccessDenied"})
		for range 10 {
			mustTrack(t, sink, map[string]string{"private": "content"})
		}
		time.Sleep(time.Hour + time.Second)
		server.ClearFaults()
		mustClose(t, sink)
		if n := strings.Count(log.String(), "uploads are parked"); n < 11 || n > 13 {
			t.Errorf("%d warnings in an hour, want one in 5 minutes:\n%s", n, log.String())
		}
		if strings.Contains(log.String(), "content") {
			t.Error("an event is logged")
		}
	})
}
