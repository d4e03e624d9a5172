package s3sink_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/s3sink/s3sink"
	"github.com/s3sink/s3sink/s3sinktest"
)

// Given events that Close has left in the spool, then the next sink delivers
// them once and in order.
func TestSpool_NextSinkDelivers(t *testing.T) {
	t.Parallel()
	for _, durability := range []s3sink.Durability{s3sink.SyncInterval, s3sink.SyncEach} {
		bubble(t, func(t *testing.T, server *s3sinktest.Server, cfg s3sink.Config) {
			cfg.SpoolDir, cfg.Durability = t.TempDir()+"/spool", durability
			server.Inject(s3sinktest.Fault{Operation: "PutObject", Status: 503})
			var want []string
			for run := range 3 {
				sink := open(t, cfg)
				for i := range 300 {
					line := fmt.Sprintf(`{"run":%d,"n":%d,"text":"%s"}`, run, i, strings.Repeat("x", i*7))
					want = append(want, line)
					if err := sink.TrackLine([]byte(line)); err != nil {
						t.Fatal(err)
					}
				}
				ctx, cancel := context.WithTimeout(t.Context(), time.Second)
				err := sink.Close(ctx)
				cancel()
				var left *s3sink.CloseError
				if !errors.Is(err, s3sink.ErrLeftInSpool) || !errors.As(err, &left) || left.Left != int64(300*(run+1)) || left.Dropped != 0 {
					t.Fatalf("close: %v", err)
				}
				checkBooks(t, sink)
			}
			server.ClearFaults()
			sink := open(t, cfg)
			mustClose(t, sink)
			if st := sink.Stats(); st.Recovered != 900 || st.Delivered != 900 || st.Pending != 0 {
				t.Errorf("%+v", st)
			}
			var got []string
			all := server.Objects(s3sinktest.Bucket)
			for _, o := range all { // in the order of their keys, which is the order of the events
				got = append(got, unpack(t, o).lines...)
			}
			if !slices.Equal(got, want) {
				t.Errorf("%d lines in %d objects, want %d in order", len(got), len(all), len(want))
			}
		})
	}
}

// Given a sink that uses a directory, when another sink is made for it, then
// New waits, logs one warning after a second, and takes the directory when it
// is free. If ctx ends before, the error names the directory, the holder and
// the cause.
func TestNew_SpoolDirIsLocked(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T, _ *s3sinktest.Server, cfg s3sink.Config) {
		var log bytes.Buffer
		cfg.SpoolDir, cfg.Logger = t.TempDir()+"/spool", slog.New(slog.NewTextHandler(&log, nil))
		first := open(t, cfg)
		const waits = "another sink uses the spool directory: New waits"
		for _, tt := range []struct {
			wait     time.Duration
			warnings int
		}{{900 * time.Millisecond, 0}, {1100 * time.Millisecond, 1}, {time.Hour, 1}} {
			log.Reset()
			stop := errors.New("the deployment was stopped")
			ctx, cancel := context.WithTimeoutCause(t.Context(), tt.wait, stop)
			_, err := s3sink.New(ctx, cfg)
			cancel()
			want := fmt.Sprintf("s3sink: another sink of this process (pid %d) uses the spool directory %s; New waited %v for it: %v; "+
				"Multiple instance of AWS S3 are not allowed for this source", os.Getpid(), cfg.SpoolDir, tt.wait, stop)
			if !errors.Is(err, s3sink.ErrSpoolLocked) || !errors.Is(err, stop) || err.Error() != want || !s3sink.Retryable(err) {
				t.Errorf("New = %v\nwant %s", err, want)
			}
			if got := strings.Count(log.String(), waits); got != tt.warnings {
				t.Errorf("after %v: %d warnings, want %d:\n%s", tt.wait, got, tt.warnings, log.String())
			}
		}
		for _, want := range []string{"directory=" + cfg.SpoolDir, fmt.Sprint("pid=", os.Getpid()), "holder="} {
			if !strings.Contains(log.String(), want) {
				t.Errorf("the warning has no %s:\n%s", want, log.String())
			}
		}
		time.AfterFunc(3*time.Second, func() { first.Close(t.Context()) })
		second := open(t, cfg)
		mustTrack(t, second, struct{}{})
		mustClose(t, second)
	})
}

// Given lines that are compressed soon, then they are written once, as a frame.
// Other lines are staged before they are older than CommitInterval.
func TestSpool_StagesUncompressedLines(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T, _ *s3sinktest.Server, cfg s3sink.Config) {
		cfg.SpoolDir, cfg.CommitInterval = t.TempDir()+"/spool", time.Second
		sink := open(t, cfg)
		line := fmt.Appendf(nil, `{"text":"%s"}`, strings.Repeat("x", 10_000))
		track := func(times int) {
			for range times {
				if err := sink.TrackLineContext(t.Context(), line); err != nil {
					t.Fatal(err)
				}
			}
		}
		for range 20 {
			track(1000)
			time.Sleep(50 * time.Millisecond)
		}
		if st := sink.Stats(); st.SpoolBytes == 0 || st.SpoolBytes > st.Accepted*int64(len(line))/10 {
			t.Errorf("%d bytes in the spool, of %d lines of %d", st.SpoolBytes, st.Accepted, len(line))
		}
		mustFlush(t, sink) // without it, one of the three lines may end a block
		time.Sleep(time.Second)
		before := sink.Stats().SpoolBytes
		track(3)
		time.Sleep(time.Second)
		if got := sink.Stats().SpoolBytes - before; got < 3*int64(len(line)) {
			t.Errorf("%d bytes came to the spool within the interval, less than three lines", got)
		}
	})
}

// Given a full spool of any size, then Track refuses events, and accepts them
// again when S3 has the pending ones.
func TestSpool_FullThenDrained(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T, _ *s3sinktest.Server, cfg s3sink.Config) {
		cfg.SpoolDir, cfg.MaxSpoolBytes = t.TempDir()+"/spool", 1<<20
		sink := open(t, cfg)
		fill := func() {
			// Lines that do not compress: cleaning would free others.
			for n := uint64(0); sink.TrackLine(noise(n, 50_000)) == nil; n++ {
				time.Sleep(time.Second)
			}
			if err := sink.TrackLine([]byte("{}")); !errors.Is(err, s3sink.ErrBufferFull) || !s3sink.Retryable(err) {
				t.Fatalf("the spool is full, but Track says %v", err)
			}
			if st := sink.Stats(); st.SpoolBytes < cfg.MaxSpoolBytes || st.SpoolBytes > cfg.MaxSpoolBytes+2*50_000 {
				t.Errorf("it holds %d bytes, want %d and one commit", st.SpoolBytes, cfg.MaxSpoolBytes)
			}
		}
		for range 3 {
			fill()
			mustFlush(t, sink)
			time.Sleep(s3sink.DefaultCommitInterval)
			if err := sink.TrackLine([]byte("{}")); err != nil {
				t.Fatalf("all is in S3, and %d bytes in the spool, but Track says %v", sink.Stats().SpoolBytes, err)
			}
		}
		mustClose(t, sink)
	})
}

// Given S3 that is down, and enough blocks on disk that their records exceed
// the memory to keep free, then relief still writes open blocks to disk.
func TestRelief_ManyBlocksOnDisk(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T, server *s3sinktest.Server, cfg s3sink.Config) {
		const sources, each = 900, 3
		cfg.SpoolDir, cfg.MaxMemory, cfg.MaxEventBytes = t.TempDir()+"/spool", 1<<20, 16<<10
		cfg.MaxObjectAge = 24 * time.Hour
		sink := open(t, cfg)
		server.Inject(s3sinktest.Fault{Operation: "PutObject", Status: 503})
		line := fmt.Appendf(nil, `{"text":"%s"}`, strings.Repeat("x", 1000))
		for n := range sources * each {
			source, err := sink.Source(fmt.Sprint("source-", n%sources))
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			err = source.TrackLineContext(ctx, line)
			cancel()
			if err != nil {
				t.Fatalf("event %d: %v, %+v", n, err, sink.Stats())
			}
		}
		onDisk := int64(sink.Stats().PendingBlocks) - cfg.MaxMemory/(4<<10) // at least: more cannot be open
		if onDisk*256 < cfg.MaxMemory/8 {
			t.Errorf("perhaps only %d blocks are on disk: that shows nothing", onDisk)
		}
		server.ClearFaults()
		mustClose(t, sink)
		if got := len(lines(t, server, s3sinktest.Bucket)); got != sources*each {
			t.Errorf("%d stored of %d", got, sources*each)
		}
	})
}
