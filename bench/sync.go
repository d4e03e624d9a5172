package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/s3sink/s3sink"
)

// consumeJob asks a child to track the events of a log in order, as a consumer
// of the log does.
type consumeJob struct {
	Dir    string
	Batch  int
	Rounds int
	For    time.Duration // each turn of a mode
	Unpack bool          // check every object
}

type consumeResult struct {
	Idle   int64       // resident bytes with an idle sink
	Rates  [][]float64 // events a second by mode and round
	Syncs  []int64     // number of calls by mode, in all rounds
	Events int64
}

// consumerModes are the ways to consume a log. The first one, which commits no
// offsets, is the baseline.
var consumerModes = []string{"no `Sync`", "`Sync` after each batch", "`Sync` from a second goroutine"}

// consume has the modes take turns in one sink, in alternating order.
func consume(ctx context.Context, job consumeJob) (result consumeResult, err error) {
	store := &nullStore{unpack: job.Unpack}
	sink, _, err := openSink(ctx, config(job.Dir, store), &result.Idle)
	if err != nil {
		return result, err
	}
	c := &consumer{sink: sink, job: job, lines: calls(4000)}
	modes := []func(context.Context) (int64, error){c.withoutSync, c.syncEachBatch, c.syncConcurrently}
	result.Rates, result.Syncs = make([][]float64, len(modes)), make([]int64, len(modes))
	for round := range job.Rounds {
		order := []int{0, 1, 2}
		if round%2 == 1 {
			slices.Reverse(order)
		}
		for _, mode := range order {
			first, began := c.next, time.Now()
			syncs, err := modes[mode](ctx)
			if err = errors.Join(err, sink.Sync(ctx)); err != nil { // no mode leaves unsynced events to the next
				return result, err
			}
			result.Rates[mode] = append(result.Rates[mode], float64(c.next-first)/time.Since(began).Seconds())
			result.Syncs[mode] += syncs
		}
	}
	result.Events = c.next
	if err := sink.Close(ctx); err != nil {
		return result, err
	}
	return result, errors.Join(checkAccounting(sink.Stats()), store.checkFirst(result.Events), checkSpoolEmpty(job.Dir))
}

// consumer tracks numbered lines from one goroutine.
type consumer struct {
	sink  *s3sink.Sink
	job   consumeJob
	lines [][]byte
	buf   []byte
	next  int64 // number of the next line, and so the offset in the log
}

// trackBatch tracks the next batch.
func (c *consumer) trackBatch(ctx context.Context) error {
	for range c.job.Batch {
		c.buf = append(c.buf[:0], c.lines[c.next%int64(len(c.lines))]...)
		setNumber(c.buf, c.next)
		if err := c.sink.TrackLineContext(ctx, c.buf); err != nil {
			return err
		}
		c.next++
	}
	return nil
}

// withoutSync tracks batches and commits no offsets.
func (c *consumer) withoutSync(ctx context.Context) (syncs int64, err error) {
	for began := time.Now(); err == nil && time.Since(began) < c.job.For; {
		err = c.trackBatch(ctx)
	}
	return 0, err
}

// syncEachBatch calls Sync after each batch.
func (c *consumer) syncEachBatch(ctx context.Context) (syncs int64, err error) {
	for began := time.Now(); err == nil && time.Since(began) < c.job.For; syncs++ {
		err = errors.Join(c.trackBatch(ctx), c.sink.Sync(ctx))
	}
	return syncs, err
}

// syncConcurrently tracks batches while a second goroutine calls Sync and
// commits the newest offset that was tracked before the call.
func (c *consumer) syncConcurrently(ctx context.Context) (syncs int64, err error) {
	tracked := make(chan int64, 1) // the newest offset to commit
	var commitErr error
	var wg sync.WaitGroup
	wg.Go(func() {
		committed := int64(0)
		for offset := range tracked {
			if commitErr = c.sink.Sync(ctx); commitErr != nil {
				return
			}
			if offset < committed {
				commitErr = fmt.Errorf("offset %d was committed after offset %d", offset, committed)
				return
			}
			committed = offset
			syncs++
		}
	})
	for began := time.Now(); err == nil && time.Since(began) < c.job.For; {
		if err = c.trackBatch(ctx); err != nil {
			break
		}
		select {
		case <-tracked: // replace an older offset that no Sync call has taken yet
		default:
		}
		tracked <- c.next
	}
	close(tracked)
	wg.Wait()
	return syncs, errors.Join(err, commitErr)
}

// measureSync measures the cost of Sync for a consumer that commits its
// offsets.
func measureSync(f *flags) func(context.Context, *bench) ([]table, error) {
	batch := f.Int("batch", 500, "`number` of events in a batch")
	d := f.Duration("for", 3*time.Second, "duration of each turn of a mode")
	unpack := f.Bool("unpack", false, unpackUsage)
	return func(ctx context.Context, b *bench) ([]table, error) {
		job := consumeJob{Dir: filepath.Join(b.dir, "spool"), Batch: *batch, Rounds: b.rounds, For: *d, Unpack: *unpack}
		got, _, err := runChild[consumeResult](ctx, "consume", job)
		if err != nil {
			return nil, err
		}
		t := table{head: []string{"", "events/s", "events/s ÷ no `Sync`", "lowest ratio", "highest ratio", "syncs/s"}}
		for i, mode := range consumerModes {
			var ratios []float64
			for n, rate := range got.Rates[i] {
				ratios = append(ratios, rate/got.Rates[0][n])
			}
			b.logf("%s: %.0f events/s", mode, got.Rates[i])
			t.add(mode, fmt.Sprintf("%.0f", median(got.Rates[i])), ratio(median(ratios)), ratio(slices.Min(ratios)), ratio(slices.Max(ratios)),
				fmt.Sprintf("%.0f", float64(got.Syncs[i])/(float64(b.rounds)*d.Seconds())))
		}
		return []table{t}, nil
	}
}
