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

// consumerJob is one consumer that tracks the events of a log in their order.
type consumerJob struct {
	Dir    string
	Batch  int
	Rounds int
	For    time.Duration // each round of each way
	Unpack bool
}

// consumed has events a second by way, one figure for each round.
type consumed struct {
	Idle   int64
	Rates  [][]float64
	Syncs  []int64 // by way, over all rounds
	Events int64
}

// consumerWays are the ways to consume, the first one without commits.
var consumerWays = []string{"no `Sync`", "`Sync` after each batch", "`Sync` beside the next batches"}

// consume has the ways take turns in one sink.
func consume(ctx context.Context, job consumerJob) (found consumed, err error) {
	store := &nullStore{unpack: job.Unpack}
	sink, _, err := start(ctx, config(job.Dir, store), &found.Idle)
	if err != nil {
		return found, err
	}
	c := &consumer{sink: sink, job: job, lines: calls(4000)}
	ways := []func(context.Context) (int64, error){c.unacknowledged, c.serial, c.beside}
	found.Rates, found.Syncs = make([][]float64, len(ways)), make([]int64, len(ways))
	for round := range job.Rounds {
		order := []int{0, 1, 2}
		if round%2 == 1 {
			slices.Reverse(order)
		}
		for _, way := range order {
			first, began := c.next, time.Now()
			syncs, err := ways[way](ctx)
			if err = errors.Join(err, sink.Sync(ctx)); err != nil { // all on disk: no way leaves work to the next
				return found, err
			}
			found.Rates[way] = append(found.Rates[way], float64(c.next-first)/time.Since(began).Seconds())
			found.Syncs[way] += syncs
		}
	}
	found.Events = c.next
	if err := sink.Close(ctx); err != nil {
		return found, err
	}
	return found, errors.Join(books(sink.Stats()), store.checkFirst(found.Events), emptied(job.Dir))
}

// consumer tracks numbered lines from one goroutine.
type consumer struct {
	sink  *s3sink.Sink
	job   consumerJob
	lines [][]byte
	own   []byte
	next  int64
}

// batch tracks the next batch.
func (c *consumer) batch(ctx context.Context) error {
	for range c.job.Batch {
		c.own = append(c.own[:0], c.lines[c.next%int64(len(c.lines))]...)
		setNumber(c.own, c.next)
		if err := c.sink.TrackLineContext(ctx, c.own); err != nil {
			return err
		}
		c.next++
	}
	return nil
}

func (c *consumer) unacknowledged(ctx context.Context) (syncs int64, err error) {
	for began := time.Now(); err == nil && time.Since(began) < c.job.For; {
		err = c.batch(ctx)
	}
	return 0, err
}

// serial commits each batch before it reads the next one.
func (c *consumer) serial(ctx context.Context) (syncs int64, err error) {
	for began := time.Now(); err == nil && time.Since(began) < c.job.For; syncs++ {
		err = errors.Join(c.batch(ctx), c.sink.Sync(ctx))
	}
	return syncs, err
}

// beside has one goroutine commit, in order, the batches that were tracked when
// its last Sync had returned.
func (c *consumer) beside(ctx context.Context) (syncs int64, err error) {
	tracked := make(chan int64, 1) // the newest offset to commit
	var failed error
	var wg sync.WaitGroup
	wg.Go(func() {
		committed := int64(0)
		for offset := range tracked {
			if failed = c.sink.Sync(ctx); failed != nil {
				return
			}
			if offset < committed {
				failed = fmt.Errorf("offset %d is committed after %d", offset, committed)
				return
			}
			committed = offset
			syncs++
		}
	})
	for began := time.Now(); err == nil && time.Since(began) < c.job.For; {
		if err = c.batch(ctx); err != nil {
			break
		}
		select {
		case <-tracked: // an older one that nobody has begun to commit
		default:
		}
		tracked <- c.next
	}
	close(tracked)
	wg.Wait()
	return syncs, errors.Join(err, failed)
}

// measureSync is what a consumer pays that commits its offsets.
func measureSync(f *flags) func(context.Context, *bench) ([]table, error) {
	batch := f.Int("batch", 500, "events")
	d := f.Duration("for", 3*time.Second, "how long each way goes on in each round")
	unpack := f.Bool("unpack", false, "look into every object that is delivered: slow")
	return func(ctx context.Context, b *bench) ([]table, error) {
		job := consumerJob{Dir: filepath.Join(b.dir, "spool"), Batch: *batch, Rounds: b.rounds, For: *d, Unpack: *unpack}
		got, _, err := ask[consumed](ctx, "consume", job)
		if err != nil {
			return nil, err
		}
		t := table{head: []string{"", "events/s", "of no `Sync`", "lowest round", "highest round", "syncs/s"}}
		for i, way := range consumerWays {
			var ratios []float64
			for n, rate := range got.Rates[i] {
				ratios = append(ratios, rate/got.Rates[0][n])
			}
			b.say("%s: %.0f events/s", way, got.Rates[i])
			t.add(way, fmt.Sprintf("%.0f", median(got.Rates[i])), ratio(median(ratios)), ratio(slices.Min(ratios)), ratio(slices.Max(ratios)),
				fmt.Sprintf("%.0f", float64(got.Syncs[i])/(float64(b.rounds)*d.Seconds())))
		}
		return []table{t}, nil
	}
}
