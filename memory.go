package s3sink

import (
	"context"
	"log/slog"

	"github.com/s3sink/s3sink/internal/memlimit"
)

// memoryShare is the part of the process's memory limit that MaxMemory is by
// default: a quarter. Compressors, uploads and the rest of the process need memory
// beside it, and a garbage collector that is not pressed needs as much again.
const memoryShare = 4

// largestDefaultMemory is the default of MaxMemory where no limit lowers it. A spool
// holds on disk what would wait in memory.
func (c *Config) largestDefaultMemory() int64 {
	if c.SpoolDir != "" {
		return DefaultMaxMemory / 2
	}
	return DefaultMaxMemory
}

// leastMemory is the minimum of MaxMemory.
func (c *Config) leastMemory() int64 {
	return max(minMemory, 4*(int64(c.MaxEventBytes)+1))
}

// fitMemory sets MaxMemory to its share of the process's limit, if it is to have its
// default and that is more. It returns the limit, which it looks for only then.
func (c *Config) fitMemory(process func() memlimit.Limit) memlimit.Limit {
	if c.MaxMemory != 0 {
		return memlimit.Limit{}
	}
	limit, filled := process(), c.withDefaults()
	if share := limit.Bytes / memoryShare; limit.Bytes > 0 && share < c.largestDefaultMemory() {
		c.MaxMemory = min(max(share, filled.leastMemory()), c.largestDefaultMemory())
	}
	return limit
}

// logDefaultMemory says which MaxMemory New has chosen, and why.
func logDefaultMemory(c *Config, limit memlimit.Limit) {
	level, why := slog.LevelDebug, "the default"
	if c.MaxMemory < c.largestDefaultMemory() {
		level, why = slog.LevelInfo, "a quarter of the process's memory limit, or the minimum; set Config.MaxMemory to choose another"
	}
	attrs := []slog.Attr{slog.Int64("bytes", c.MaxMemory), slog.String("why", why)}
	if limit.Bytes > 0 {
		attrs = append(attrs, slog.Int64("limit", limit.Bytes), slog.String("limit_of", limit.Of))
	}
	c.Logger.LogAttrs(context.Background(), level, "s3sink: MaxMemory is not set", attrs...)
}
