package s3sink_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/s3sink/s3sink"
	"github.com/s3sink/s3sink/s3sinktest"
)

// ownTime is a ReceivedAt for events that carry their time in "at".
func ownTime(event any) time.Time {
	var at struct{ At time.Time }
	switch e := event.(type) {
	case []byte:
		if err := json.Unmarshal(e, &at); err != nil {
			panic(err)
		}
	case map[string]any:
		at.At, _ = e["at"].(time.Time)
	case s3sink.Event:
		at.At = e.Timestamp
	}
	return at.At
}

// Given events with their own received times on alternating days, then each day
// has one object, in order.
func TestReceivedAt(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T, server *s3sinktest.Server, cfg s3sink.Config) {
		cfg.ReceivedAt = ownTime
		sink := open(t, cfg)
		first := time.Date(2026, 3, 1, 23, 59, 59, 0, time.UTC)
		for i := range 300 {
			at := first.AddDate(0, 0, i%3).Add(-time.Duration(i) * time.Second)
			if i%2 == 0 {
				mustTrack(t, sink, map[string]any{"at": at, "n": i})
			} else if err := sink.TrackLine(fmt.Appendf(nil, `{"at":%q,"n":%d}`, at.Format(time.RFC3339), i)); err != nil {
				t.Fatal(err)
			}
		}
		mustClose(t, sink)
		all := objects(t, server, s3sinktest.Bucket)
		if len(all) != 3 {
			t.Fatalf("%d objects, want one for each day", len(all))
		}
		for _, o := range all {
			last := -1
			for _, line := range o.lines {
				var e struct {
					At time.Time
					N  int
				}
				if err := json.Unmarshal([]byte(line), &e); err != nil {
					t.Fatal(err)
				}
				day := fmt.Sprintf("/%d/", e.At.Truncate(24*time.Hour).UnixMilli())
				if !strings.Contains(o.Key, day) || e.N <= last {
					t.Errorf("event %d of %v comes after %d in %s", e.N, e.At, last, o.Key)
				}
				last = e.N
			}
			if got := o.Metadata["s3sink-last-received"]; !strings.HasSuffix(got, "T23:59:59.000Z") && !strings.HasSuffix(got, "T23:59:58.000Z") && !strings.HasSuffix(got, "T23:59:57.000Z") {
				t.Errorf("%s: last received %s", o.Key, got)
			}
		}
	})
}

func TestReceivedAtStampsEvents(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T, server *s3sinktest.Server, cfg s3sink.Config) {
		cfg.ReceivedAt = ownTime
		sink := open(t, cfg)
		at := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
		mustTrack(t, sink, s3sink.Event{Type: s3sink.TypePage, UserID: "u", Timestamp: at})
		mustTrack(t, sink, s3sink.Event{Type: s3sink.TypePage, UserID: "u"})
		mustClose(t, sink)
		got := strings.Join(lines(t, server, s3sinktest.Bucket), "")
		for _, want := range []string{`"receivedAt":"2026-03-01T12:00:00.000Z"`, `"receivedAt":"2000-01-01T00:00:00.000Z"`} {
			if !strings.Contains(got, want) {
				t.Errorf("no %s in %s", want, got)
			}
		}
	})
}

// Given a ReceivedAt that panics, or returns a time that no key can represent,
// then Track returns an error.
func TestReceivedAt_Invalid(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T, server *s3sinktest.Server, cfg s3sink.Config) {
		cfg.ReceivedAt = ownTime
		sink := open(t, cfg)
		for name, event := range map[string]any{
			"too early": map[string]any{"at": time.Date(1969, 12, 31, 23, 59, 59, 0, time.UTC)},
			"too late":  map[string]any{"at": time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC)},
			"panic":     []byte(`{"at":"yesterday"}`),
		} {
			err := sink.Track(event)
			var wrong *s3sink.EventError
			if !errors.As(err, &wrong) || !strings.Contains(err.Error(), "Config.ReceivedAt") {
				t.Errorf("%s: %v", name, err)
			}
		}
		mustTrack(t, sink, map[string]any{"at": time.Date(9999, 12, 31, 0, 0, 0, 0, time.UTC)})
		mustTrack(t, sink, map[string]any{"at": time.Date(1970, 1, 1, 0, 0, 0, 0, time.UTC)})
		mustClose(t, sink)
		if n := len(lines(t, server, s3sinktest.Bucket)); n != 2 {
			t.Errorf("%d events stored, want 2", n)
		}
	})
}

// Given an event that waits for room, then it keeps its received time.
func TestReceivedAt_WhileWaitingForRoom(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T, server *s3sinktest.Server, cfg s3sink.Config) {
		cfg.ReceivedAt = ownTime
		cfg.MaxMemory, cfg.MaxEventBytes = 1<<20, 100<<10
		at := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
		server.Inject(s3sinktest.Fault{Operation: "PutObject", Status: 503, Times: 3})
		sink := open(t, cfg)
		for i := range 100 {
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			if err := sink.TrackContext(ctx, map[string]any{"at": at, "text": noise(uint64(i), 60<<10)}); err != nil {
				t.Fatal(err)
			}
			cancel()
		}
		mustClose(t, sink)
		for _, o := range objects(t, server, s3sinktest.Bucket) {
			if !strings.Contains(o.Key, "/1772323200000/") {
				t.Errorf("stored as %s, want the day of %v", o.Key, at)
			}
		}
	})
}
