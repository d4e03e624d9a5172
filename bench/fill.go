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

// fillJob is a spool to be left behind.
type fillJob struct {
	Dir     string
	Bytes   int64 // of its files, at least
	Sources int
	Line    int // bytes of a line that does not compress; 0: Segment-like calls

	ObjectBytes  int64 // an object is full at
	ObjectEvents int64 // 0: no limit
}

type filled struct {
	Bytes  int64
	Events int64
	Sealed int64 // objects; each source has one more that is not
	Took   time.Duration
}

// fill tracks until the spool has the bytes, while S3 hangs, waits until all is on the
// disk, and leaves it as a process does that is killed: some objects are sealed,
// some are not, and some lines are in no object.
func fill(ctx context.Context, job fillJob) (found filled, err error) {
	f := &filler{job: job, lines: job.lines()}
	cfg := config(job.Dir, deadStore{})
	cfg.CompressionLevel, cfg.MaxObjectAge, cfg.CommitInterval = 1, 24*time.Hour, fillInterval
	cfg.MaxObjectBytes, cfg.MaxObjectEvents = job.ObjectBytes, job.ObjectEvents
	cfg.MaxMemory = 16<<20 + 400*job.blocks() // each takes some as long as it waits
	for _, line := range f.lines {
		cfg.MaxEventBytes = max(cfg.MaxEventBytes, len(line))
	}
	cfg.Hooks.Sealed = func(o s3sink.Sealed) {
		f.sealed.Add(1)
		f.sealedEvents.Add(o.Object.Events)
	}
	if f.sink, err = s3sink.New(ctx, cfg); err != nil {
		return found, err
	}
	if f.sources, err = sourcesOf(f.sink, job.Sources); err != nil {
		return found, err
	}
	began := time.Now()
	if err := f.track(ctx); err != nil {
		return found, err
	}
	f.settle()
	st := f.sink.Stats() // a hook that was missed was one of these
	return filled{Bytes: st.SpoolBytes, Events: st.Accepted, Sealed: f.sealed.Load() + st.MissedHooks, Took: time.Since(began)}, books(st)
}

func (job *fillJob) lines() [][]byte {
	if job.Line == 0 {
		return calls(4000)
	}
	return noise(min(4000, 16<<20/job.Line), job.Line)
}

// blocks is about how many there will be.
func (job *fillJob) blocks() int64 {
	raw := min(256<<10, job.ObjectBytes/10)
	if job.ObjectEvents > 0 {
		raw = min(raw, job.ObjectEvents*int64(job.Line))
	}
	if job.Line > 0 {
		return job.Bytes / max(1, raw*3/4)
	}
	return job.Bytes / max(1, raw/6)
}

// filler is a child that fills a spool.
type filler struct {
	job     fillJob
	lines   [][]byte
	sink    *s3sink.Sink
	sources []*s3sink.Source

	numbers              atomic.Int64 // of lines, drawn so far
	sealed, sealedEvents atomic.Int64
	missed               atomic.Int64 // objects that are not in sealed
	full                 atomic.Bool
}

// track tracks numbered lines on all cores, each source's in turn.
func (f *filler) track(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var wg sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		wg.Go(func() {
			var own []byte
			for !f.full.Load() && ctx.Err() == nil {
				for f.ahead() && pause(ctx, time.Millisecond) {
				}
				n := f.numbers.Add(1) - 1
				own = append(own[:0], f.lines[n%int64(len(f.lines))]...)
				setNumber(own, n)
				if err := f.sources[n%int64(len(f.sources))].TrackLineContext(ctx, own); err != nil {
					cancel(err)
				}
			}
		})
	}
	for n := 0; filesIn(f.job.Dir) < f.job.Bytes && pause(ctx, 5*time.Millisecond); n++ {
		if n%200 == 0 {
			f.missed.Store(f.sink.Stats().MissedHooks)
		}
	}
	f.full.Store(true)
	wg.Wait()
	return context.Cause(ctx)
}

// filesIn returns how many bytes a spool's files have. A sink's Stats say so too,
// but look at every block, under the lock that Track needs.
func filesIn(dir string) (bytes int64) {
	files, _ := os.ReadDir(dir)
	for _, f := range files {
		if info, err := f.Info(); err == nil {
			bytes += info.Size()
		}
	}
	return bytes
}

// ahead reports whether producers should wait. With very many blocks MaxMemory
// does not hold them up, and lines that wait long for compression are on the disk
// twice.
func (f *filler) ahead() bool {
	if f.job.Line == 0 || f.full.Load() {
		return false
	}
	line := int64(f.job.Line)
	object := f.job.ObjectBytes * 4 / 3 / line
	if f.job.ObjectEvents > 0 {
		object = f.job.ObjectEvents
	}
	open := object * int64(f.job.Sources)
	return f.numbers.Load()-f.sealedEvents.Load()-f.missed.Load()*object > open+8<<20/line
}

// fillInterval is the CommitInterval of who fills a spool.
const fillInterval = 400 * time.Millisecond

// settle waits until the spool has not grown for a while.
func (f *filler) settle() {
	bytes := int64(-1)
	for last := time.Now(); time.Since(last) < 4*fillInterval; {
		time.Sleep(fillInterval / 4)
		if now := f.sink.Stats().SpoolBytes; now != bytes {
			bytes, last = now, time.Now()
		}
	}
}

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

func pause(ctx context.Context, d time.Duration) bool {
	select {
	case <-time.After(d):
		return true
	case <-ctx.Done():
		return false
	}
}

// linked makes a directory with links to the files of a spool: a journal never
// writes to a file of an earlier run, so what is done in it is not done to them.
func linked(spool string) (dir string, err error) {
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
