package s3sink

import (
	"context"
	"log/slog"

	"github.com/s3sink/s3sink/internal/memlimit"
)

// memoryShare is the divisor of the process's memory limit that yields the
// default MaxMemory: a quarter. Compressors, uploads and the rest of the process
// need memory too, and the garbage collector needs as much again to run rarely.
const memoryShare = 4

// largestDefaultMemory returns the default of MaxMemory when no memory limit
// lowers it. It is smaller with a SpoolDir, where pending events wait on disk.
func (c *Config) largestDefaultMemory() int64 {
	if c.SpoolDir != "" {
		return DefaultMaxMemory / 2
	}
	return DefaultMaxMemory
}

// leastMemory returns the minimum of MaxMemory.
func (c *Config) leastMemory() int64 {
	return max(minMemory, 4*(int64(c.MaxEventBytes)+1))
}

// fitMemory lowers the default of MaxMemory to a share of the process's memory
// limit. It returns that limit, or the zero Limit if MaxMemory is set: then it
// does not read the limit.
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

// logDefaultMemory logs the MaxMemory that New has chosen, and the reason.
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
