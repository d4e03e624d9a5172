package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"runtime"
	"sync"
	"time"

	"github.com/s3sink/s3sink"
)

// pipelineJob asks a child to track events at full speed.
type pipelineJob struct {
	Dir    string // the spool; empty selects memory mode
	Bytes  int64  // of NDJSON
	Unpack bool   // check every object
}

type pipelineResult struct {
	Idle                        int64
	Took                        time.Duration // from the first Track until Close returned
	RawBytes, Objects, ObjBytes int64
}

// pipeline tracks numbered events, closes the sink, and checks that the store
// received each of them.
func pipeline(ctx context.Context, job pipelineJob) (result pipelineResult, err error) {
	store := &nullStore{unpack: job.Unpack}
	cfg := config(job.Dir, store)
	lines := calls(4000)
	sink, _, err := openSink(ctx, cfg, &result.Idle)
	if err != nil {
		return result, err
	}
	var length int64
	for _, line := range lines {
		length += int64(len(line)) + 1
	}
	events := max(1, job.Bytes*int64(len(lines))/length)
	began := time.Now()
	if err := trackAll(ctx, sink, lines, events); err != nil {
		return result, err
	}
	if err := sink.Close(ctx); err != nil {
		return result, err
	}
	result.Took = time.Since(began)
	st := sink.Stats()
	result.RawBytes, result.Objects, result.ObjBytes = st.RawBytes, st.Objects, st.ObjectBytes
	return result, errors.Join(checkAccounting(st), store.checkFirst(events), checkSpoolEmpty(job.Dir))
}

// trackAll tracks numbered lines with one goroutine for each core.
func trackAll(ctx context.Context, sink *s3sink.Sink, lines [][]byte, events int64) error {
	producers := int64(runtime.GOMAXPROCS(0))
	errs := make([]error, producers)
	var wg sync.WaitGroup
	for p := range producers {
		wg.Go(func() {
			var buf []byte
			for n := p; n < events && errs[p] == nil; n += producers {
				buf = append(buf[:0], lines[n%int64(len(lines))]...)
				setNumber(buf, n)
				errs[p] = sink.TrackLineContext(ctx, buf)
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

// measureSpool compares the throughput of SyncInterval and of memory mode.
func measureSpool(f *flags) func(context.Context, *bench) ([]table, error) {
	raw := f.size("raw", "2GB", "`bytes` of NDJSON in each round")
	unpack := f.Bool("unpack", false, unpackUsage)
	return func(ctx context.Context, b *bench) ([]table, error) {
		names := []string{"memory mode", "`SyncInterval`"}
		var rate, size, objects, peaks, above [2][]float64
		for n := range b.rounds {
			for k := range names {
				i := (k + n) % 2
				job := pipelineJob{Bytes: int64(*raw), Unpack: *unpack}
				if i == 1 {
					job.Dir = filepath.Join(b.dir, fmt.Sprint("spool-", n))
				}
				got, peak, err := runChild[pipelineResult](ctx, "pipeline", job)
				if err != nil {
					return nil, err
				}
				b.logf("%s: %v, %d objects with %s MB in total, peak %s MB", names[i], got.Took, got.Objects, megabytes(got.ObjBytes), megabytes(peak))
				rate[i], size[i] = append(rate[i], float64(got.RawBytes)/got.Took.Seconds()), append(size[i], float64(got.ObjBytes))
				objects[i] = append(objects[i], float64(got.Objects))
				peaks[i], above[i] = append(peaks[i], float64(peak)), append(above[i], float64(peak-got.Idle))
			}
		}
		t := table{head: []string{"", "MB/s of NDJSON", "MB/s ÷ memory mode", objectBytesRatio, "objects", "peak RSS MB", "above idle MB"}}
		for i, name := range names {
			t.add(name, megabytes(median(rate[i])), ratio(median(rate[i])/median(rate[0])), fmt.Sprintf("%.3f", median(size[i])/median(size[0])),
				fmt.Sprintf("%.0f", median(objects[i])), megabytes(median(peaks[i])), megabytes(median(above[i])))
		}
		return []table{t}, nil
	}
}
