package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"time"

	"github.com/s3sink/s3sink"
)

// sourcesJob asks a child to track events at a steady rate, from each source in
// turn.
type sourcesJob struct {
	Dir     string
	Sources int
	Rate    int // events a second, of all sources together
	For     time.Duration
	Memory  int64 // MaxMemory in bytes; 0 is the default
	Unpack  bool  // check every object
}

type sourcesResult struct {
	Idle     int64 // resident bytes with an idle sink
	Events   int64
	Lags     []time.Duration // samples of the time since Stats.Synced
	Commits  int             // number of changes of Stats.Synced
	MaxDelay time.Duration   // the largest delay of a Track behind its schedule
	CPU      float64         // cores
	Written  int64           // bytes
	MaxFiles int             // the largest number of open files
}

// pollInterval is the time between two samples of Stats.Synced.
const pollInterval = 25 * time.Millisecond

// trackSources tracks events at the rate of the job, samples Stats.Synced, and
// closes the sink. It checks that the store received every event once.
func trackSources(ctx context.Context, job sourcesJob) (result sourcesResult, err error) {
	store := &nullStore{unpack: job.Unpack}
	cfg := config(job.Dir, store)
	cfg.MaxMemory = job.Memory
	sink, _, err := openSink(ctx, cfg, &result.Idle)
	if err != nil {
		return result, err
	}
	sources, err := sourcesOf(sink, job.Sources)
	if err != nil {
		return result, err
	}
	lines := calls(4000)
	before, wrote := processorTime(), written()
	began := time.Now()
	ended := make(chan struct{})
	polled := make(chan struct{})
	go func() {
		defer close(polled)
		result.pollSynced(sink, began, ended)
	}()
	maxDelay, err := keepRate(ctx, job, sources, lines, began)
	close(ended)
	<-polled
	if err != nil {
		return result, err
	}
	result.MaxDelay = maxDelay
	result.CPU = (processorTime() - before).Seconds() / time.Since(began).Seconds()
	result.Written = written() - wrote
	result.Events = sink.Stats().Accepted
	if err := sink.Close(ctx); err != nil {
		return result, err
	}
	return result, errors.Join(checkAccounting(sink.Stats()), store.checkFirst(result.Events), checkSpoolEmpty(job.Dir))
}

// keepRate tracks each event at its scheduled time, or later if Track waits for
// memory. It returns the largest delay. A delay longer than the whole run ends
// it with an error.
func keepRate(ctx context.Context, job sourcesJob, sources []*s3sink.Source, lines [][]byte, began time.Time) (time.Duration, error) {
	workers := runtime.GOMAXPROCS(0)
	interval := time.Second / time.Duration(job.Rate)
	delays, errs := make([]time.Duration, workers), make([]error, workers)
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			var buf []byte
			for n := w; n < int(job.For/interval); n += workers {
				delay := time.Since(began.Add(time.Duration(n) * interval))
				if delay < -time.Millisecond { // Sleep has about this precision
					time.Sleep(-delay)
				}
				if delays[w] = max(delays[w], delay); delay > job.For {
					errs[w] = fmt.Errorf("event %d of %d is %v behind its schedule: lower -n", n, int(job.For/interval), delay)
					return
				}
				buf = append(buf[:0], lines[n%len(lines)]...)
				setNumber(buf, int64(n))
				if errs[w] = sources[n%len(sources)].TrackLineContext(ctx, buf); errs[w] != nil {
					return
				}
			}
		})
	}
	wg.Wait()
	return slices.Max(delays), errors.Join(errs...)
}

// pollSynced samples Stats.Synced until ended is closed. New events arrive all
// the time, so there are always events that are not fsynced yet.
func (f *sourcesResult) pollSynced(sink *s3sink.Sink, began time.Time, ended <-chan struct{}) {
	synced := began
	for ticks := time.Tick(pollInterval); ; {
		select {
		case <-ended:
			return
		case <-ticks:
		}
		if at := sink.Stats().Synced; at.After(synced) {
			synced = at
			f.Commits++
		}
		f.Lags = append(f.Lags, time.Since(synced))
		if len(f.Lags)%40 == 1 {
			f.MaxFiles = max(f.MaxFiles, openFiles())
		}
	}
}

// measureSources compares many sources in one sink with one source at the same
// total rate.
func measureSources(f *flags) func(context.Context, *bench) ([]table, error) {
	n := f.Int("n", 10_000, "`number` of sources, with one event a second each")
	d := f.Duration("for", time.Minute, "duration of each run")
	memory := f.Int64("memory", 0, "MaxMemory in `MiB`; 0 is the default")
	unpack := f.Bool("unpack", false, unpackUsage)
	return func(ctx context.Context, b *bench) ([]table, error) {
		t := table{head: []string{"sources", "events/s", "events", "median lag ms", "max lag ms", "commits", "written MB", "cores", "open files", "max Track delay ms", "peak RSS MB", "above idle MB"}}
		for range b.rounds {
			for i, sources := range []int{*n, 1} {
				job := sourcesJob{Dir: filepath.Join(b.dir, fmt.Sprint("spool-", i)), Sources: sources, Rate: *n, For: *d, Memory: *memory << 20, Unpack: *unpack}
				got, peak, err := runChild[sourcesResult](ctx, "sources", job)
				if err != nil {
					return nil, err
				}
				t.add(fmt.Sprint(sources), fmt.Sprint(*n), fmt.Sprint(got.Events), millis(median(got.Lags).Seconds()), millis(slices.Max(got.Lags).Seconds()),
					fmt.Sprint(got.Commits), megabytes(got.Written), number(got.CPU), fmt.Sprint(got.MaxFiles), millis(got.MaxDelay.Seconds()), megabytes(peak), megabytes(peak-got.Idle))
			}
		}
		return []table{t}, nil
	}
}
