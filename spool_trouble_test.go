package s3sink_test

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"log/slog"
	"slices"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/s3sink/s3sink"
	"github.com/s3sink/s3sink/internal/vfs/crashfs"
	"github.com/s3sink/s3sink/s3sinktest"
)

// newOnDisk returns a sink whose spool is on disk.
func newOnDisk(t *testing.T, cfg s3sink.Config, disk *crashfs.FS) (*s3sink.Sink, error) {
	cfg.Logger = slog.New(slog.DiscardHandler)
	return s3sink.NewOnDisk(t.Context(), cfg, disk.Dir())
}

func openOnDisk(t *testing.T, cfg s3sink.Config, disk *crashfs.FS) *s3sink.Sink {
	t.Helper()
	sink, err := newOnDisk(t, cfg, disk)
	if err != nil {
		t.Fatal(err)
	}
	return sink
}

// closeWithin closes sink with a context that ends after span.
func closeWithin(t *testing.T, sink *s3sink.Sink, span time.Duration) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), span)
	defer cancel()
	defer checkBooks(t, sink)
	return sink.Close(ctx)
}

// Given a last commit that fails, then Close counts the events that are only in
// memory as dropped, and returns the reason.
func TestClose_LastCommitFails(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T, server *s3sinktest.Server, cfg s3sink.Config) {
		server.Inject(s3sinktest.Fault{Operation: "PutObject", Status: 503})
		disk := crashfs.New(1)
		sink := openOnDisk(t, cfg, disk)
		mustTrack(t, sink, struct{}{})
		disk.Inject(func(op crashfs.Op) error {
			if op.Call == crashfs.CallSync {
				return syscall.EIO
			}
			return nil
		})
		var left *s3sink.CloseError
		var spool *s3sink.SpoolError
		if err := closeWithin(t, sink, time.Second); !errors.As(err, &left) || left.Left != 0 || left.Dropped != 1 || !errors.As(err, &spool) || !errors.Is(err, syscall.EIO) || errors.Is(err, s3sink.ErrLeftInSpool) {
			t.Errorf("close: %v", err)
		}
	})
}

// Given a spool that cannot be read from any point on, then Err and Close
// report it. The events of this run wait, and are delivered after the events of
// previous runs.
func TestRecovery_SpoolUnreadable(t *testing.T) {
	t.Parallel()
	stuck := 0
	for good := range 12 { // reads that succeed
		for _, mended := range []bool{true, false} {
			bubble(t, func(t *testing.T, server *s3sinktest.Server, cfg s3sink.Config) {
				if unread(t, server, cfg, good, mended) {
					stuck++
				}
			})
		}
	}
	if stuck < 6 || stuck > 22 {
		t.Errorf("%d of 24 spools could not be read", stuck)
	}
}

// unread starts a sink on a spool from which only the first good reads succeed.
// It reports whether recovery was stuck until reads worked again.
func unread(t *testing.T, server *s3sinktest.Server, cfg s3sink.Config, good int, mended bool) (stuck bool) {
	disk := crashfs.New(1)
	server.Inject(s3sinktest.Fault{Operation: "PutObject", Status: 503})
	first := openOnDisk(t, cfg, disk)
	mustTrack(t, first, json.RawMessage(`{"n":0}`))
	time.Sleep(s3sink.DefaultMaxObjectAge + time.Second) // the object is sealed
	mustTrack(t, first, json.RawMessage(`{"n":1}`))
	time.Sleep(2 * s3sink.DefaultCommitInterval)
	disk.Stop()
	disk = disk.Kill()
	closeWithin(t, first, 0)
	server.ClearFaults()

	var reads atomic.Int64
	disk.Inject(func(op crashfs.Op) error {
		if op.Call == crashfs.CallRead && reads.Add(1) > int64(good) {
			return syscall.EIO
		}
		return nil
	})
	sink, err := newOnDisk(t, cfg, disk)
	if err != nil {
		return true // New reports the failure
	}
	if mended {
		mustTrack(t, sink, json.RawMessage(`{"n":2}`))
	}
	time.Sleep(time.Minute)
	stuck = sink.Stats().Recovered < 2
	var spool *s3sink.SpoolError
	if err := sink.Err(); errors.As(err, &spool) != stuck || errors.Is(err, syscall.EIO) != stuck {
		t.Errorf("after %d good reads Err is %v", good, err)
	}
	if !mended {
		if err := closeWithin(t, sink, time.Second); errors.As(err, &spool) != stuck {
			t.Errorf("after %d good reads Close says %v", good, err)
		}
		disk = disk.Kill()
		sink = openOnDisk(t, cfg, disk)
	}
	disk.Inject(nil)
	time.Sleep(time.Minute)
	if err := sink.Err(); err != nil {
		t.Errorf("it can be read again, but Err is %v", err)
	}
	if err := closeWithin(t, sink, time.Minute); err != nil {
		t.Error(err)
	}
	want := []string{`{"n":0}`, `{"n":1}`, `{"n":2}`}
	if !mended {
		want = want[:2]
	}
	if got := linesByKey(t, server); !slices.Equal(got, want) {
		t.Errorf("after %d good reads %q is stored, want %q", good, got, want)
	}
	return stuck
}

// linesByKey returns every stored line, objects in the order of their keys.
func linesByKey(t *testing.T, server *s3sinktest.Server) (all []string) {
	t.Helper()
	for _, o := range server.Objects(s3sinktest.Bucket) {
		all = append(all, unpack(t, o).lines...)
	}
	return all
}

// Given a disk that fails at every attempt, each time on another file, then the
// text of the error stays the same, File and the wrapped error name the file,
// and errors.Is finds the cause.
func TestSpoolError_TextIsStable(t *testing.T) {
	t.Parallel()
	for name, call := range map[string]crashfs.Call{"sync": crashfs.CallSync, "append": crashfs.CallAppend, "create": crashfs.CallCreate} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			bubble(t, func(t *testing.T, _ *s3sinktest.Server, cfg s3sink.Config) {
				disk := crashfs.New(1)
				disk.Inject(func(op crashfs.Op) error {
					if op.Call == call {
						return syscall.ENOSPC
					}
					return nil
				})
				log := new(logLines)
				cfg.Logger = log.logger()
				sink, err := s3sink.NewOnDisk(t.Context(), cfg, disk.Dir())
				if err != nil {
					t.Fatal(err)
				}
				mustTrack(t, sink, struct{}{})
				texts, files := map[string]bool{}, map[string]bool{}
				for range 5 {
					time.Sleep(2 * s3sink.DefaultCommitInterval)
					var full *s3sink.SpoolError
					var named *fs.PathError
					for _, err := range []error{sink.Err(), sink.Sync(t.Context()), sink.Stats().SpoolError} {
						if !errors.As(err, &full) || !errors.Is(err, syscall.ENOSPC) || !errors.As(err, &named) || named.Path != full.File() {
							t.Fatalf("%#v", err)
						}
						texts[full.Error()], files[full.File()] = true, true
					}
				}
				if len(texts) != 1 || len(files) < 5 {
					t.Errorf("%d texts of failures of %d files, want one:\n%v", len(texts), len(files), texts)
				}
				closeWithin(t, sink, 0)
				if said := log.with(t, "last commit to the spool failed"); len(said) != 1 || !texts[said[0].Error] {
					t.Errorf("the log says %+v", said)
				}
			})
		})
	}
}
