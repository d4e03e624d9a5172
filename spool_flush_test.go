package s3sink_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/s3sink/s3sink"
	"github.com/s3sink/s3sink/internal/vfs/crashfs"
	"github.com/s3sink/s3sink/s3sinktest"
)

// leaveOnDisk returns the disk of a killed run with events of two sources:
// sealed objects, and lines that are in no sealed object.
func leaveOnDisk(t *testing.T, server *s3sinktest.Server, cfg s3sink.Config, sealed, open int) *crashfs.FS {
	t.Helper()
	server.Inject(s3sinktest.Fault{Operation: "PutObject", Status: 503})
	defer server.ClearFaults()
	disk := crashfs.New(1)
	cfg.MaxObjectEvents = 1
	first := openOnDisk(t, cfg, disk)
	for n := range sealed {
		src, err := first.Source([]string{"a", "b"}[n%2])
		if err != nil {
			t.Fatal(err)
		}
		mustTrack(t, src, json.RawMessage(fmt.Sprintf(`{"n":%d}`, n)))
	}
	if err := closeWithin(t, first, 0); sealed > 0 && !errors.Is(err, context.DeadlineExceeded) {
		t.Fatal(err)
	}
	cfg.MaxObjectEvents = 0
	disk = disk.Kill()
	second := openOnDisk(t, cfg, disk)
	for n := range open {
		src, err := second.Source([]string{"a", "b"}[n%2])
		if err != nil {
			t.Fatal(err)
		}
		mustTrack(t, src, json.RawMessage(fmt.Sprintf(`{"open":%d}`, n)))
	}
	if err := second.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	disk.Stop()
	closeWithin(t, second, 0)
	synctest.Wait()
	return disk.Kill()
}

// Given a spool with events of previous runs, when Flush is called right after
// New, then it returns after all of them are in S3, and Stats counts them.
func TestFlush_WaitsForPreviousRuns(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ sealed, open int }{{20, 0}, {0, 6}, {20, 6}} {
		bubble(t, func(t *testing.T, server *s3sinktest.Server, cfg s3sink.Config) {
			disk := leaveOnDisk(t, server, cfg, tt.sealed, tt.open)
			server.Inject(s3sinktest.Fault{Operation: "PutObject", Delay: time.Second})
			sink := openOnDisk(t, cfg, disk)
			mustFlush(t, sink)
			st := sink.Stats()
			want := int64(tt.sealed + tt.open)
			if st.Recovering || st.Recovered != want || st.Delivered != want || st.Pending != 0 {
				t.Errorf("%d events were left; after Flush: %+v", want, st)
			}
			if got := len(linesByKey(t, server)); got != int(want) {
				t.Errorf("%d lines are stored, want %d", got, want)
			}
			closeWithin(t, sink, time.Minute)
		})
	}
}

// Given a bucket that refuses one source, then Flush of another source waits
// for the recovered events of that other source only.
func TestSourceFlush_WaitsForOwnRecoveredEvents(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T, server *s3sinktest.Server, cfg s3sink.Config) {
		disk := leaveOnDisk(t, server, cfg, 20, 6)
		server.Inject(s3sinktest.Fault{Operation: "PutObject", Match: keyContains("/b/"), Status: 403, Code: "AccessDenied"})
		sink := openOnDisk(t, cfg, disk)
		a, err := sink.Source("a")
		if err != nil {
			t.Fatal(err)
		}
		b, err := sink.Source("b")
		if err != nil {
			t.Fatal(err)
		}
		mustFlush(t, a)
		if st := sink.Stats(); st.Delivered != 13 || st.Recovered != 26 {
			t.Errorf("after the Flush of a: %+v", st)
		}
		for of, flush := range map[string]func(context.Context) error{"b": b.Flush, "the sink": sink.Flush} {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			if err := flush(ctx); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("Flush of %s: %v", of, err)
			}
			cancel()
		}
		closeWithin(t, sink, time.Second)
	})
}

// Given a spool that cannot be read, then Stats reports the recovery, and a
// Flush without a deadline ends when the sink is closed.
func TestFlush_SinkIsClosed(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T, server *s3sinktest.Server, cfg s3sink.Config) {
		disk := leaveOnDisk(t, server, cfg, 4, 0)
		disk.Inject(func(op crashfs.Op) error {
			if op.Call == crashfs.CallRead {
				return syscall.EIO
			}
			return nil
		})
		sink, err := newOnDisk(t, cfg, disk)
		if err != nil {
			disk.Inject(nil)
			t.Skipf("New reads: %v", err)
		}
		flushed := make(chan error, 1)
		go func() { flushed <- sink.Flush(context.Background()) }()
		time.Sleep(time.Minute)
		if st := sink.Stats(); !st.Recovering || st.Recovered != 0 {
			t.Errorf("nothing can be read, and Stats says %+v", st)
		}
		closeWithin(t, sink, time.Second)
		if err := <-flushed; !errors.Is(err, s3sink.ErrClosed) {
			t.Errorf("Flush: %v", err)
		}
		disk.Inject(nil)
	})
}

// Given a Flush without a deadline while S3 is down, when Close leaves the
// events in the spool, then Flush returns ErrClosed.
func TestFlush_EndsWhenCloseLeavesEvents(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T, server *s3sinktest.Server, cfg s3sink.Config) {
		cfg.SpoolDir = t.TempDir() + "/spool"
		server.Inject(s3sinktest.Fault{Operation: "PutObject", Status: 503})
		sink := open(t, cfg)
		mustTrack(t, sink, struct{}{})
		flushed := make(chan error, 1)
		go func() { flushed <- sink.Flush(context.Background()) }()
		time.Sleep(time.Second)
		closed := closeWithin(t, sink, time.Second)
		if err := <-flushed; !errors.Is(err, s3sink.ErrClosed) || closed == nil {
			t.Errorf("Flush: %v, Close: %v", err, closed)
		}
		if err := sink.Flush(context.Background()); !errors.Is(err, s3sink.ErrClosed) {
			t.Errorf("Flush after Close: %v", err)
		}
	})
}

// keyContains matches requests for keys that contain text.
func keyContains(text string) func(*http.Request) bool {
	return func(r *http.Request) bool { return strings.Contains(r.URL.Path, text) }
}

// Given a spool and S3 that is down, when the ctx of Close ends, however short
// it is, then Close returns ErrLeftInSpool, and the next sink delivers
// everything. Without a spool the events are dropped, and Close does not return
// that error.
func TestClose_LeftInSpool(t *testing.T) {
	t.Parallel()
	for _, span := range []time.Duration{0, time.Second, 25 * time.Second} {
		for _, fault := range []s3sinktest.Fault{{Status: 503}, {Status: 403, Code: "AccessDenied"}, {Stall: true}} {
			bubble(t, func(t *testing.T, server *s3sinktest.Server, cfg s3sink.Config) {
				fault.Operation = "PutObject"
				server.Inject(fault)
				closed := func(cfg s3sink.Config) error {
					sink := open(t, cfg)
					for n := range 1000 {
						mustTrack(t, sink, json.RawMessage(fmt.Sprintf(`{"n":%d}`, n)))
					}
					began := time.Now()
					err := closeWithin(t, sink, span)
					if waited := time.Since(began); waited != span {
						t.Errorf("Close(%v) took %v", span, waited)
					}
					return err
				}
				spooled := cfg
				spooled.SpoolDir = t.TempDir() + "/spool"
				var left *s3sink.CloseError
				if err := closed(spooled); !errors.Is(err, s3sink.ErrLeftInSpool) || !errors.As(err, &left) || left.Left != 1000 ||
					!strings.Contains(err.Error(), "no event is lost") {
					t.Errorf("with a spool: %v", err)
				}
				if err := closed(cfg); errors.Is(err, s3sink.ErrLeftInSpool) || !errors.As(err, &left) || left.Dropped != 1000 {
					t.Errorf("without a spool: %v", err)
				}
				synctest.Wait()
				server.ClearFaults()
				next := open(t, spooled)
				mustClose(t, next)
				if got := len(lines(t, server, s3sinktest.Bucket)); got != 1000 {
					t.Errorf("the next sink delivered %d events, want 1000", got)
				}
			})
		}
	}
}
