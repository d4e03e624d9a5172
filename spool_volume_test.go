package s3sink_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/s3sink/s3sink"
	"github.com/s3sink/s3sink/internal/vfs/crashfs"
	"github.com/s3sink/s3sink/s3sinktest"
)

// Given S3 that is down until the spool has filled its volume, when S3 is back,
// then everything that SyncEach has acknowledged is delivered within a minute,
// also after a kill or a power cut. While no events are accepted, the volume
// still has the quarter of the reserve that frames do not use.
func TestVolume_FullForADay(t *testing.T) {
	t.Parallel()
	for _, end := range []string{"lives on", "killed", "cut"} {
		for seed := range uint64(3) {
			t.Run(fmt.Sprint(end, " ", seed), func(t *testing.T) {
				t.Parallel()
				bubble(t, func(t *testing.T, server *s3sinktest.Server, cfg s3sink.Config) {
					fillAndDrain(t, server, cfg, end, seed)
				})
			})
		}
	}
}

const dayVolume = 2 << 20

func fillAndDrain(t *testing.T, server *s3sinktest.Server, cfg s3sink.Config, end string, seed uint64) {
	rng := rand.New(rand.NewPCG(seed, 5))
	cfg.Durability, cfg.MaxMemory, cfg.MaxEventBytes = s3sink.SyncEach, 1<<20, 64<<10
	cfg.MaxObjectAge = 10 * time.Second
	disk := crashfs.New(seed)
	disk.SetCapacity(dayVolume)
	sink := openOnDisk(t, cfg, disk)
	server.Refuse(true)
	acked := map[string]bool{}
	var err error
	for n, refused := 0, 0; refused < 60; n++ {
		text := make([]byte, 500+rng.IntN(2000))
		for i := range text {
			text[i] = byte('!' + rng.IntN(90))
		}
		line := fmt.Sprintf(`{"n":%d,"text":"%x"}`, n, text)
		if err = sink.TrackLine([]byte(line)); err == nil {
			acked[line] = true
			continue
		}
		refused++
		time.Sleep(time.Second) // objects are closed in this time, and their memory is freed
	}
	var spool *s3sink.SpoolError
	if !errors.Is(err, s3sink.ErrBufferFull) || !strings.Contains(err.Error(), "nearly full") || !errors.As(err, &spool) {
		t.Errorf("on a full volume: %v", err)
	}
	st := sink.Stats()
	if st.SpoolBytes < dayVolume/3 || len(acked) == 0 {
		t.Errorf("full with %d bytes of %d, %d events", st.SpoolBytes, dayVolume, len(acked))
	}
	reserve, _ := disk.ReadFile("s3sink.reserve")
	dir := disk.Dir()
	if free, err := dir.Free(); err != nil || free+int64(len(reserve)) < dayVolume/32/4 {
		t.Errorf("a full volume has %d bytes free, and a reserve of %d: %v", free, len(reserve), err)
	}
	dir.Close()
	switch end {
	case "killed", "cut":
		disk.Stop()
		dead, cancel := context.WithCancel(t.Context())
		cancel()
		sink.Close(dead)
		if end == "killed" {
			disk = disk.Kill()
		} else {
			disk = disk.Crash(rng)
		}
		server.Refuse(false)
		sink = openOnDisk(t, cfg, disk)
	default:
		server.Refuse(false)
	}
	time.Sleep(time.Minute)
	for _, line := range lines(t, server, s3sinktest.Bucket) {
		delete(acked, line)
	}
	if len(acked) > 0 {
		t.Errorf("%d acknowledged events are not delivered a minute after S3 is well: %+v", len(acked), sink.Stats())
	}
	if err := sink.TrackLine([]byte("{}")); err != nil {
		t.Errorf("when all is delivered: %v", err)
	}
	mustClose(t, sink)
	if open := disk.Handles(); len(open) > 0 {
		t.Errorf("open after Close: %v", open)
	}
}

// New logs a warning if the volume has less room than MaxSpoolBytes, and only
// then.
func TestNew_VolumeSmallerThanMaxSpoolBytes(t *testing.T) {
	t.Parallel()
	for capacity, want := range map[int64]bool{0: false, 4 << 20: true, 64 << 20: false} {
		bubble(t, func(t *testing.T, server *s3sinktest.Server, cfg s3sink.Config) {
			var log bytes.Buffer
			cfg.MaxSpoolBytes, cfg.Logger = 32<<20, slog.New(slog.NewTextHandler(&log, nil))
			disk := crashfs.New(1)
			disk.SetCapacity(capacity)
			sink, err := s3sink.NewOnDisk(t.Context(), cfg, disk.Dir())
			if err != nil {
				t.Fatal(err)
			}
			if got := strings.Contains(log.String(), "less room than MaxSpoolBytes"); got != want {
				t.Errorf("a volume of %d bytes: %s", capacity, &log)
			}
			mustClose(t, sink)
		})
	}
}

// Given a volume that another program has filled, when events are in memory
// only and S3 is down, then Close counts them as dropped, not as left.
func TestClose_CountsUnspooledEventsAsDropped(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T, server *s3sinktest.Server, cfg s3sink.Config) {
		server.Refuse(true)
		disk := crashfs.New(1)
		sink := openOnDisk(t, cfg, disk)
		for range 3 {
			mustTrack(t, sink, struct{}{})
		}
		time.Sleep(2 * s3sink.DefaultCommitInterval) // these are on disk
		disk.Inject(func(op crashfs.Op) error {
			if op.Call == crashfs.CallAppend || op.Call == crashfs.CallCreate {
				return syscall.ENOSPC
			}
			return nil
		})
		for range 4 {
			mustTrack(t, sink, struct{}{})
		}
		var left *s3sink.CloseError
		err := closeWithin(t, sink, 5*time.Second)
		if !errors.As(err, &left) || left.Left != 3 || left.Dropped != 4 || !errors.Is(err, syscall.ENOSPC) {
			t.Errorf("Close: %v, want 3 events left and 4 dropped", err)
		}
	})
}
