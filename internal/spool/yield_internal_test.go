package spool

import (
	"testing"
	"time"
)

func TestYieldBackoff(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		before int
		in     time.Duration
		joined int
		took   time.Duration
		want   time.Duration
	}{
		"half of 64 callers join at once": {32, 200 * time.Microsecond, 32, 50 * time.Microsecond, 0},
		"they join as fast as without":    {8, time.Millisecond, 8, time.Millisecond, 0},
		"63 join, while 111 would have":   {1, 270 * time.Microsecond, 63, 30 * time.Millisecond, 120 * time.Millisecond},
		"nobody joins":                    {1, 200 * time.Microsecond, 0, time.Millisecond, 4 * time.Millisecond},
		"nobody joins, in no time":        {64, 200 * time.Microsecond, 0, 0, 0},
		"the last commit is long ago":     {1, 24 * time.Hour, 1, time.Second, 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if got := yieldBackoff(tt.before, tt.in, tt.joined, tt.took); got != tt.want {
				t.Errorf("got %v, want %v", got, tt.want)
			}
		})
	}
}
