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

// sourcesJob is a steady rate of events, of so many sources in turn.
type sourcesJob struct {
	Dir     string
	Sources int
	Rate    int // events a second, of all
	For     time.Duration
	Memory  int64 // MaxMemory; 0 is the default
	Unpack  bool
}

type sourcesFound struct {
	Idle    int64
	Events  int64
	Lags    []time.Duration // since Stats.Synced
	Commits int             // that were seen
	Late    time.Duration   // the most that an event was tracked behind its time
	CPU     float64         // cores
	Written int64           // bytes
	Files   int             // open, at the most
}

// lookEvery is how often a sink is asked how far the disk is.
const lookEvery = 25 * time.Millisecond

// trackSources keeps the rate, looks how far the disk is behind, and delivers
// everything in the end.
func trackSources(ctx context.Context, job sourcesJob) (found sourcesFound, err error) {
	store := &nullStore{unpack: job.Unpack}
	cfg := config(job.Dir, store)
	cfg.MaxMemory = job.Memory
	sink, _, err := start(ctx, cfg, &found.Idle)
	if err != nil {
		return found, err
	}
	sources, err := sourcesOf(sink, job.Sources)
	if err != nil {
		return found, err
	}
	lines := calls(4000)
	before, wrote := processorTime(), written()
	began := time.Now()
	ended := make(chan struct{})
	looked := make(chan struct{})
	go func() {
		defer close(looked)
		found.look(sink, began, ended)
	}()
	late, err := keepRate(ctx, job, sources, lines, began)
	close(ended)
	<-looked
	if err != nil {
		return found, err
	}
	found.Late = late
	found.CPU = (processorTime() - before).Seconds() / time.Since(began).Seconds()
	found.Written = written() - wrote
	found.Events = sink.Stats().Accepted
	if err := sink.Close(ctx); err != nil {
		return found, err
	}
	return found, errors.Join(books(sink.Stats()), store.checkFirst(found.Events), emptied(job.Dir))
}

// keepRate tracks each event at its time, or when there is room, and returns by how
// much it was late. Who is far too late gives up.
func keepRate(ctx context.Context, job sourcesJob, sources []*s3sink.Source, lines [][]byte, began time.Time) (time.Duration, error) {
	workers := runtime.GOMAXPROCS(0)
	each := time.Second / time.Duration(job.Rate)
	late, errs := make([]time.Duration, workers), make([]error, workers)
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			var own []byte
			for n := w; n < int(job.For/each); n += workers {
				behind := time.Since(began.Add(time.Duration(n) * each))
				if behind < -time.Millisecond { // a sleep is not more exact
					time.Sleep(-behind)
				}
				if late[w] = max(late[w], behind); behind > job.For {
					errs[w] = fmt.Errorf("event %d of %d is %v late", n, int(job.For/each), behind)
					return
				}
				own = append(own[:0], lines[n%len(lines)]...)
				setNumber(own, int64(n))
				if errs[w] = sources[n%len(sources)].TrackLineContext(ctx, own); errs[w] != nil {
					return
				}
			}
		})
	}
	wg.Wait()
	return slices.Max(late), errors.Join(errs...)
}

// look asks the sink again and again how far the disk is. There is always
// something that is not on it.
func (f *sourcesFound) look(sink *s3sink.Sink, began time.Time, ended <-chan struct{}) {
	synced := began
	for ticks := time.Tick(lookEvery); ; {
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
			f.Files = max(f.Files, openFiles())
		}
	}
}

// measureSources is many sources in one sink, beside one at the same rate.
func measureSources(f *flags) func(context.Context, *bench) ([]table, error) {
	n := f.Int("n", 10_000, "sources, of one event a second each")
	d := f.Duration("for", time.Minute, "how long")
	memory := f.Int64("memory", 0, "MaxMemory in `MiB`; 0 is the default")
	unpack := f.Bool("unpack", false, "look into every object that is delivered: slow")
	return func(ctx context.Context, b *bench) ([]table, error) {
		t := table{head: []string{"sources", "events/s", "events", "lag median ms", "lag max ms", "commits", "written MB", "cores", "open files", "Track late by ms", "peak RSS MB", "above idle MB"}}
		for range b.rounds {
			for i, sources := range []int{*n, 1} {
				job := sourcesJob{Dir: filepath.Join(b.dir, fmt.Sprint("spool-", i)), Sources: sources, Rate: *n, For: *d, Memory: *memory << 20, Unpack: *unpack}
				got, peak, err := ask[sourcesFound](ctx, "sources", job)
				if err != nil {
					return nil, err
				}
				t.add(fmt.Sprint(sources), fmt.Sprint(*n), fmt.Sprint(got.Events), millis(median(got.Lags).Seconds()), millis(slices.Max(got.Lags).Seconds()),
					fmt.Sprint(got.Commits), mega(got.Written), number(got.CPU), fmt.Sprint(got.Files), millis(got.Late.Seconds()), mega(peak), mega(peak-got.Idle))
			}
		}
		return []table{t}, nil
	}
}
