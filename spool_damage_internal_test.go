package s3sink

import (
	"bytes"
	"compress/flate"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/s3sink/s3sink/internal/vfs/crashfs"
)

// openOn returns a sink with its spool on disk.
func openOn(t *testing.T, disk *crashfs.FS, bucket *shelf, change ...func(*Config)) *Sink {
	t.Helper()
	cfg := shelfConfig(bucket)
	for _, f := range change {
		f(&cfg)
	}
	sink, err := New(t.Context(), cfg)
	if err == nil {
		err = sink.startSpool(disk.Dir())
	}
	if err != nil {
		t.Fatal(err)
	}
	return sink
}

// Given an object that the disk cannot read, then it is set aside with a copy
// of its readable bytes, and other objects are delivered.
func TestSpool_ReadErrorAtUpload(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		bucket := kindShelf(t)
		disk := crashfs.New(1)
		var log strings.Builder
		told := make(chan Corrupt, 9)
		sink := openOn(t, disk, bucket, func(c *Config) {
			c.Logger = slog.New(slog.NewTextHandler(&log, nil))
			c.Hooks.Corrupt = func(e Corrupt) { told <- e }
		})
		flush := func(events int) error {
			for n := range events {
				if err := sink.TrackLine(fmt.Appendf(nil, `{"src":"a","n":%d}`, n)); err != nil {
					t.Fatal(err)
				}
			}
			ctx, cancel := context.WithTimeout(t.Context(), 2*time.Hour)
			defer cancel()
			return sink.Flush(ctx)
		}
		if err := flush(3); err != nil {
			t.Error(err)
		}
		failReads(disk, time.Hour, 1) // the last attempt fails, and then the copy is made
		if err := flush(4); !errors.Is(err, ErrDamaged) {
			t.Errorf("Flush: %v", err)
		}
		if err := flush(5); err != nil {
			t.Error(err)
		}
		run := sink.runID()
		var lost *CloseError
		if err := sink.Close(t.Context()); !errors.As(err, &lost) || !errors.Is(err, ErrDamaged) || lost.Quarantined != 4 {
			t.Errorf("Close: %v", err)
		}
		if st := sink.Stats(); st.Delivered != 8 || st.Quarantined != 4 || st.Pending != 0 || st.Attempts < 7 {
			t.Errorf("%+v", st)
		}
		name := "corrupt/" + run + "-2.gz.part"
		part, _ := disk.ReadFile(name)
		raw, _ := io.ReadAll(flate.NewReader(bytes.NewReader(part[min(10, len(part)):])))
		if n := bytes.Count(raw, newline); n != 4 {
			t.Errorf("the copy has %d lines, want 4", n)
		}
		if len(told) != 1 {
			t.Fatalf("told of %d objects, want 1", len(told))
		}
		if e := <-told; e.Object.Events != 4 || !errors.Is(e.Err, syscall.EIO) || !errors.Is(e.Err, ErrDamaged) {
			t.Errorf("told of %+v", e)
		}
		if !strings.Contains(log.String(), "level=ERROR") || !strings.Contains(log.String(), name) {
			t.Errorf("log: %s", &log)
		}
		if left, err := disk.Dir().List(); err != nil || len(left) != 1 {
			t.Errorf("left %v, %v", left, err)
		}
	})
}

// Given any damage of a spool between two runs, then intact events are
// delivered once, lost events are counted and logged, and the counts balance.
func TestSpool_DamageIsReported(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		bucket := kindShelf(t)
		bucket.shut = true
		disk := crashfs.New(1)
		rng := rand.New(rand.NewPCG(2, 2))
		ended, cancel := context.WithCancel(t.Context())
		cancel()
		tracked := map[string]bool{}
		for run := range 2 {
			sink := openOn(t, disk, bucket, func(c *Config) { c.MaxObjectEvents = 40 })
			for n := range 60 {
				text := make([]byte, 5000)
				for i := range text {
					text[i] = byte(rng.Uint32())
				}
				line := fmt.Sprintf(`{"src":"a","run":%d,"n":%d,"text":"%x"}`, run, n, text)
				tracked[line] = true
				if err := sink.TrackLine([]byte(line)); err != nil {
					t.Fatal(err)
				}
				if n%20 == 0 {
					time.Sleep(time.Second)
				}
			}
			sink.Close(ended)
		}
		entries, err := disk.Dir().List()
		if err != nil || len(entries) < 3 {
			t.Fatal(entries, err)
		}
		const flips = 30
		quarantined, lines := int64(0), 0
		var told atomic.Int64
		for i := range flips {
			disk := disk.Kill()
			name := entries[i%2].Name
			data, _ := disk.ReadFile(name)
			data[i*len(data)/flips] ^= 1
			disk.Put(name, 0, data)
			bucket := kindShelf(t)
			var log strings.Builder
			sink := openOn(t, disk, bucket, func(c *Config) {
				c.Logger = slog.New(slog.NewTextHandler(&log, nil))
				c.Hooks.Corrupt = func(e Corrupt) {
					told.Add(e.Object.Events)
					if !errors.Is(e.Err, ErrDamaged) {
						t.Errorf("told of %v", e.Err)
					}
				}
			})
			err := sink.Close(t.Context())
			st := sink.Stats()
			if st.Recovered != st.Delivered+st.Quarantined || st.Pending != 0 || (err != nil) != (st.Quarantined > 0) {
				t.Errorf("flip %d: %+v, %v", i, st, err)
			}
			quarantined += st.Quarantined
			got := bucket.lines(t)
			lines += len(got)
			if int64(len(got)) != st.Delivered || len(got) < len(tracked)-30 {
				t.Errorf("flip %d: %d lines, %+v", i, len(got), st)
			}
			slices.Sort(got)
			if len(slices.Compact(slices.Clone(got))) != len(got) {
				t.Errorf("flip %d: a line is there twice", i)
			}
			for _, line := range got {
				if !tracked[line] {
					t.Errorf("flip %d: phantom %q", i, line)
				}
			}
			said := strings.Contains(log.String(), "level=ERROR") && strings.Contains(log.String(), "corrupt") && strings.Contains(log.String(), name)
			if said != (st.SpoolDamaged > 0) || st.SpoolDamaged == 0 && (len(got) != len(tracked) || st.SpoolTorn == 0) {
				t.Errorf("flip %d: said %v, %+v", i, said, st)
			}
		}
		if quarantined == 0 || told.Load() == 0 || lines < flips*len(tracked)*9/10 {
			t.Errorf("%d events were quarantined, %d told of, %d lines delivered", quarantined, told.Load(), lines)
		}
	})
}
