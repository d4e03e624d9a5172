package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/s3sink/s3sink"
)

// fillJob asks a child to fill a spool and to end without Close.
type fillJob struct {
	Dir     string
	Bytes   int64 // minimum size of the journal files
	Sources int
	Line    int // bytes of a line of noise; 0 selects Segment-like calls

	ObjectBytes  int64 // MaxObjectBytes
	ObjectEvents int64 // MaxObjectEvents; 0 for no limit
}

type fillResult struct {
	Bytes  int64
	Events int64
	Sealed int64 // sealed objects; each source has an open one as well
	Took   time.Duration
}

// fill tracks events until the spool has the bytes of the job, while S3 does
// not answer, and waits until all events are fsynced. The child then ends
// without Close, like a process that is killed: the spool has sealed segments,
// open segments, and lines that have no frame.
func fill(ctx context.Context, job fillJob) (result fillResult, err error) {
	f := &filler{job: job, lines: job.lines()}
	cfg := config(job.Dir, deadStore{})
	cfg.CompressionLevel, cfg.MaxObjectAge, cfg.CommitInterval = 1, 24*time.Hour, fillInterval
	cfg.MaxObjectBytes, cfg.MaxObjectEvents = job.ObjectBytes, job.ObjectEvents
	cfg.MaxMemory = 16<<20 + 400*job.estimateBlocks() // pending blocks are charged to MaxMemory
	for _, line := range f.lines {
		cfg.MaxEventBytes = max(cfg.MaxEventBytes, len(line))
	}
	cfg.Hooks.Sealed = func(o s3sink.Sealed) {
		f.sealed.Add(1)
		f.sealedEvents.Add(o.Object.Events)
	}
	if f.sink, err = s3sink.New(ctx, cfg); err != nil {
		return result, err
	}
	if f.sources, err = sourcesOf(f.sink, job.Sources); err != nil {
		return result, err
	}
	began := time.Now()
	if err := f.track(ctx); err != nil {
		return result, err
	}
	f.awaitIdle()
	st := f.sink.Stats()
	// Sealed is the only hook, so each missed call is one sealed object.
	return fillResult{Bytes: st.SpoolBytes, Events: st.Accepted, Sealed: f.sealed.Load() + st.MissedHooks, Took: time.Since(began)}, checkAccounting(st)
}

// lines returns the lines that the child tracks in turn.
func (job *fillJob) lines() [][]byte {
	if job.Line == 0 {
		return calls(4000)
	}
	return noise(min(4000, 16<<20/job.Line), job.Line)
}

// estimateBlocks returns the approximate number of blocks in the spool.
func (job *fillJob) estimateBlocks() int64 {
	raw := min(256<<10, job.ObjectBytes/10)
	if job.ObjectEvents > 0 {
		raw = min(raw, job.ObjectEvents*int64(job.Line))
	}
	if job.Line > 0 {
		return job.Bytes / max(1, raw*3/4)
	}
	return job.Bytes / max(1, raw/6)
}

// filler fills a spool with several goroutines.
type filler struct {
	job     fillJob
	lines   [][]byte
	sink    *s3sink.Sink
	sources []*s3sink.Source

	nextNumber           atomic.Int64 // of a line
	sealed, sealedEvents atomic.Int64 // objects and events that the Sealed hook reported
	missed               atomic.Int64 // sealed objects that no hook reported
	full                 atomic.Bool
}

// track tracks numbered lines with one goroutine for each core, from each
// source in turn, until the spool is full.
func (f *filler) track(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var wg sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		wg.Go(func() {
			var buf []byte
			for !f.full.Load() && ctx.Err() == nil {
				for f.shouldWait() && pause(ctx, time.Millisecond) {
				}
				n := f.nextNumber.Add(1) - 1
				buf = append(buf[:0], f.lines[n%int64(len(f.lines))]...)
				setNumber(buf, n)
				if err := f.sources[n%int64(len(f.sources))].TrackLineContext(ctx, buf); err != nil {
					cancel(err)
				}
			}
		})
	}
	for n := 0; fileBytes(f.job.Dir) < f.job.Bytes && pause(ctx, 5*time.Millisecond); n++ {
		if n%200 == 0 {
			f.missed.Store(f.sink.Stats().MissedHooks)
		}
	}
	f.full.Store(true)
	wg.Wait()
	return context.Cause(ctx)
}

// fileBytes returns the total size of a spool's files. Stats.SpoolBytes would
// do, but Stats visits every block while it holds the lock that Track needs.
func fileBytes(dir string) (bytes int64) {
	files, _ := os.ReadDir(dir)
	for _, f := range files {
		if info, err := f.Info(); err == nil {
			bytes += info.Size()
		}
	}
	return bytes
}

// shouldWait reports whether producers of noise should wait for compression.
// For many blocks MaxMemory is so large that it does not slow the producers.
// Lines that wait long for compression are written to the journal twice, as
// lines and as a frame, so the spool would reach its size with too few objects.
func (f *filler) shouldWait() bool {
	if f.job.Line == 0 || f.full.Load() {
		return false
	}
	line := int64(f.job.Line)
	objectEvents := f.job.ObjectBytes * 4 / 3 / line
	if f.job.ObjectEvents > 0 {
		objectEvents = f.job.ObjectEvents
	}
	openEvents := objectEvents * int64(f.job.Sources)
	return f.nextNumber.Load()-f.sealedEvents.Load()-f.missed.Load()*objectEvents > openEvents+8<<20/line
}

// fillInterval is the CommitInterval of a sink that fills a spool.
const fillInterval = 400 * time.Millisecond

// awaitIdle waits until the size of the spool is stable for four commit
// intervals.
func (f *filler) awaitIdle() {
	bytes := int64(-1)
	for last := time.Now(); time.Since(last) < 4*fillInterval; {
		time.Sleep(fillInterval / 4)
		if now := f.sink.Stats().SpoolBytes; now != bytes {
			bytes, last = now, time.Now()
		}
	}
}

// sourcesOf returns n sources of a sink.
func sourcesOf(sink *s3sink.Sink, n int) ([]*s3sink.Source, error) {
	all := make([]*s3sink.Source, n)
	for i := range all {
		src, err := sink.Source(fmt.Sprint("source-", i))
		if err != nil {
			return nil, err
		}
		all[i] = src
	}
	return all, nil
}

// pause waits for d. It reports false if ctx ended first.
func pause(ctx context.Context, d time.Duration) bool {
	select {
	case <-time.After(d):
		return true
	case <-ctx.Done():
		return false
	}
}

// linkSpool creates a directory with hard links to the files of a spool. A sink
// can start on it again and again: a journal never writes to a file of a
// previous run, so it removes only the links.
func linkSpool(spool string) (dir string, err error) {
	files, err := filepath.Glob(filepath.Join(spool, "*.journal"))
	if err != nil {
		return "", err
	}
	if dir, err = os.MkdirTemp(filepath.Dir(spool), "linked-"); err != nil {
		return "", err
	}
	for _, name := range files {
		if err := os.Link(name, filepath.Join(dir, filepath.Base(name))); err != nil {
			return "", err
		}
	}
	return dir, nil
}
