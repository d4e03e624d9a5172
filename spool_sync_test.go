package s3sink_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/s3sink/s3sink"
	"github.com/s3sink/s3sink/internal/vfs/crashfs"
	"github.com/s3sink/s3sink/s3sinktest"
)

// Given a consumer that tracks a batch and commits its offset once the batch is
// on disk, when power fails right after the commit, then the next process
// delivers every event of every committed batch.
func TestSync_EventsSurvivePowerCut(t *testing.T) {
	t.Parallel()
	for cutAfter := range 20 { // batches
		bubble(t, func(t *testing.T, server *s3sinktest.Server, cfg s3sink.Config) {
			server.Inject(s3sinktest.Fault{Operation: "PutObject", Status: 503})
			disk := crashfs.New(uint64(cutAfter))
			sink := openOnDisk(t, cfg, disk)
			var want []string
			for batch := range cutAfter {
				for n := range 5 {
					want = append(want, fmt.Sprintf(`{"batch":%d,"n":%d}`, batch, n))
					mustTrack(t, sink, json.RawMessage(want[len(want)-1]))
				}
				if err := sink.Sync(t.Context()); err != nil {
					t.Fatal(err)
				}
			}
			disk.Stop()
			disk = disk.Crash(rand.New(rand.NewPCG(uint64(cutAfter), 1)))
			closeWithin(t, sink, 0)
			server.ClearFaults()
			next := openOnDisk(t, cfg, disk)
			if err := closeWithin(t, next, time.Minute); err != nil {
				t.Fatal(err)
			}
			if got := linesByKey(t, server); strings.Join(got, "\n") != strings.Join(want, "\n") {
				t.Errorf("%d events are stored after a power cut, want %d in order", len(got), len(want))
			}
		})
	}
}

// Given a consumer that tracks a batch, does other work, and then waits until
// Stats.Synced has passed the current time, when nothing else is tracked, then
// the wait ends within CommitInterval for each batch, and Synced never goes
// back.
func TestStatsSynced_AdvancesWhileIdle(t *testing.T) {
	t.Parallel()
	for _, work := range []time.Duration{0, 5 * time.Millisecond, s3sink.DefaultCommitInterval} {
		t.Run(fmt.Sprint("work=", work), func(t *testing.T) {
			t.Parallel()
			bubble(t, func(t *testing.T, _ *s3sinktest.Server, cfg s3sink.Config) {
				cfg.SpoolDir = t.TempDir() + "/spool"
				sink := open(t, cfg)
				var before time.Time
				for batch := range 60 {
					for range 500 {
						mustTrack(t, sink, struct{}{})
					}
					if now := sink.Stats().Synced; now.Before(before) {
						t.Errorf("Synced went back by %v", before.Sub(now))
					}
					time.Sleep(work)
					began := time.Now()
					for !sink.Stats().Synced.After(began) {
						if time.Since(began) > s3sink.DefaultCommitInterval {
							t.Fatalf("batch %d: Synced stays %v behind", batch, time.Since(sink.Stats().Synced))
						}
						time.Sleep(10 * time.Millisecond)
					}
					before = sink.Stats().Synced
				}
				mustClose(t, sink)
			})
		})
	}
}

// Given a disk that fails, Sync returns a SpoolError; when the disk works again,
// the next Sync returns nil and the events are on disk.
func TestSync_DiskFails(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T, server *s3sinktest.Server, cfg s3sink.Config) {
		disk := crashfs.New(1)
		sink := openOnDisk(t, cfg, disk)
		var broken atomic.Bool
		disk.Inject(func(op crashfs.Op) error {
			if broken.Load() && op.Call == crashfs.CallSync {
				return syscall.EIO
			}
			return nil
		})
		broken.Store(true)
		mustTrack(t, sink, struct{}{})
		var spool *s3sink.SpoolError
		if err := sink.Sync(t.Context()); !errors.As(err, &spool) || !errors.Is(err, syscall.EIO) {
			t.Errorf("the disk fails, but Sync says %v", err)
		}
		broken.Store(false)
		if err := sink.Sync(t.Context()); err != nil {
			t.Errorf("the disk works again, but Sync says %v", err)
		}
		if err := closeWithin(t, sink, time.Minute); err != nil {
			t.Error(err)
		}
		if got := len(lines(t, server, s3sinktest.Bucket)); got != 1 {
			t.Errorf("%d lines are stored, want 1", got)
		}
	})
}

// Sync without a SpoolDir returns an error that names the field. With Disabled
// it returns nil. With an ended ctx it returns the cause, and after Close the
// result of the last commit.
func TestSync_WithoutWork(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T, _ *s3sinktest.Server, cfg s3sink.Config) {
		sink := open(t, cfg)
		var missing *s3sink.ConfigError
		if err := sink.Sync(t.Context()); !errors.As(err, &missing) || missing.Field != "SpoolDir" {
			t.Errorf("without a SpoolDir: %v", err)
		}
		mustClose(t, sink)

		disabled := cfg
		disabled.Disabled = true
		if err := open(t, disabled).Sync(t.Context()); err != nil {
			t.Errorf("with Disabled: %v", err)
		}

		cfg.SpoolDir = t.TempDir() + "/spool"
		sink = open(t, cfg)
		src, err := sink.Source("another")
		if err != nil {
			t.Fatal(err)
		}
		mustTrack(t, src, struct{}{})
		if err := src.Sync(t.Context()); err != nil {
			t.Errorf("of a Source: %v", err)
		}
		cause := errors.New("the consumer was stopped")
		ctx, cancel := context.WithCancelCause(t.Context())
		cancel(cause)
		mustTrack(t, src, struct{}{})
		if err := sink.Sync(ctx); err != nil && !errors.Is(err, cause) {
			t.Errorf("with an ended context: %v", err)
		}
		mustClose(t, sink)
		if err := sink.Sync(t.Context()); err != nil {
			t.Errorf("after Close: %v", err)
		}
	})
}
