package s3sink

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"

	"github.com/s3sink/s3sink/internal/memlimit"
)

// Given a memory limit of the process, then the default of MaxMemory is a
// quarter of it, within its bounds.
func TestFitMemory_Limits(t *testing.T) {
	t.Parallel()
	const mib = 1 << 20
	for name, tt := range map[string]struct {
		cfg   Config
		limit int64
		want  int64
		logs  string
	}{
		"no limit":                {Config{}, 0, 128 * mib, "level=DEBUG"},
		"no limit, with a spool":  {Config{SpoolDir: "spool"}, 0, 64 * mib, "level=DEBUG"},
		"large limit":             {Config{}, 512 * mib, 128 * mib, "level=DEBUG"},
		"limit":                   {Config{}, 256 * mib, 64 * mib, "level=INFO"},
		"same limit and a spool":  {Config{SpoolDir: "spool"}, 256 * mib, 64 * mib, "level=DEBUG"},
		"limit and a spool":       {Config{SpoolDir: "spool"}, 100 * mib, 25 * mib, "level=INFO"},
		"small limit":             {Config{}, 8 * mib, 4*mib + 4, "level=INFO"}, // 4 events of MaxEventBytes
		"small limit and events":  {Config{MaxEventBytes: 1000}, 2 * mib, 1 * mib, "level=INFO"},
		"limit below the minimum": {Config{MaxEventBytes: 31 * mib}, 256 * mib, 124*mib + 4, "level=INFO"},
		"events that do not fit":  {Config{MaxEventBytes: 40 * mib}, 256 * mib, 128 * mib, "level=DEBUG"}, // the default of a process without a limit; validate refuses it
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var log bytes.Buffer
			tt.cfg.Logger = slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))
			limit := tt.cfg.fitMemory(func() memlimit.Limit { return memlimit.Limit{Bytes: tt.limit, Of: "a test"} })
			cfg := tt.cfg.withDefaults()
			if cfg.MaxMemory != tt.want {
				t.Errorf("MaxMemory %d, want %d", cfg.MaxMemory, tt.want)
			}
			logDefaultMemory(&cfg, limit)
			if got := log.String(); !strings.Contains(got, tt.logs) || tt.limit > 0 && !strings.Contains(got, `limit_of="a test"`) {
				t.Errorf("logged %s", got)
			}
		})
	}
}

// Given a MaxMemory in the Config, then it is not changed, and no limit is
// read.
func TestFitMemory_Chosen(t *testing.T) {
	t.Parallel()
	cfg := Config{MaxMemory: 200 << 20}
	cfg.fitMemory(func() memlimit.Limit { t.Error("the limit was looked for"); return memlimit.Limit{Bytes: 1 << 20} })
	if cfg.MaxMemory != 200<<20 {
		t.Errorf("MaxMemory %d", cfg.MaxMemory)
	}
}
