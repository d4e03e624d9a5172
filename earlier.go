package s3sink

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync/atomic"
	"unicode/utf8"

	"github.com/s3sink/s3sink/internal/s3put"
	"github.com/s3sink/s3sink/internal/spool"
	"github.com/s3sink/s3sink/policy"
)

// What an object is, its key too, was decided by the run that took its events;
// how it is sent is decided by the Config of the run that sends it. When that
// has another KeyFormat, it must be allowed to write to the folders of both.

// isEarlier reports whether a segment's key is outside the folder of the key
// format.
func (s *Sink) isEarlier(seg *spool.Segment) bool {
	return !strings.HasPrefix(seg.Key, s.cfg.folder())
}

// folderOf returns the folder that a format which nobody knows any more has
// given to all its keys: what is above the folder of the source. Where no folder
// has the name of the source, it is the one that the key is in.
func (s *Sink) folderOf(seg *spool.Segment) string {
	key := seg.Key[len(s.prefix):]
	folder := "/" + key[:strings.LastIndexByte(key, '/')+1]
	source := escapeSource(seg.Source) + "/"
	if at := max(strings.LastIndex(folder, "/"+source), strings.LastIndex(folder, "="+source)); at >= 0 {
		folder = folder[:strings.LastIndexByte(folder[:at+1], '/')+1]
	}
	return s.prefix + folder[1:]
}

// scope is what sessions of the role that writes are cut down to.
type scope struct {
	policy atomic.Pointer[policy.Document]
}

func newScope(c *Config) *scope {
	s := new(scope)
	s.set(c.policyFacts().SessionPolicy())
	return s
}

func (s *scope) set(p policy.Document) { s.policy.Store(&p) }
func (s *scope) get() policy.Document  { return *s.policy.Load() }

// widen lets sessions write what earlier runs have left under keys of another
// format, before any of it is sent. They may until the sink is closed.
func (s *Sink) widen(left *spool.Recovered) {
	folders := s.earlierFolders
	look := func(seg *spool.Segment) {
		if s.isEarlier(seg) {
			folders[s.folderOf(seg)] = struct{}{}
		}
	}
	for _, seg := range left.Sealed {
		look(seg)
	}
	for _, t := range left.Unfinished {
		if t.Segment != nil {
			look(t.Segment)
		}
	}
	if len(folders) == 0 {
		return
	}
	s.scope.set(s.cfg.policyWith(slices.Collect(maps.Keys(folders))))
	s.client.Renew() // Validate may have had a session made
}

// roomyPolicy is how long a session policy gets for the sake of earlier folders,
// in characters. STS also packs it, and what that comes to nobody can know.
const roomyPolicy = maxSessionPolicy / 2

// policyWith is the session policy for keys in other folders too. Where they are
// too many, the folders above them take their place, up to the prefix: it is
// the first folder of all keys that are sent, and no longer than what the
// policy has without them.
func (c *Config) policyWith(folders []string) policy.Document {
	_, prefix := c.place()
	facts := c.policyFacts()
	depth := 0
	for _, f := range folders {
		depth = max(depth, strings.Count(f[len(prefix):], "/"))
	}
	for ; ; depth-- {
		above := make([]string, len(folders))
		for i, f := range folders {
			names := strings.SplitAfter(f[len(prefix):], "/")
			above[i] = prefix + strings.Join(names[:min(depth, len(names))], "")
		}
		p := facts.SessionPolicy(above...)
		if depth == 0 || utf8.RuneCountInString(p.Compact()) <= roomyPolicy {
			return p
		}
	}
}

// explainEarlier adds to a denial what a person cannot see in the Config: that
// the key is of an earlier one.
func (s *Sink) explainEarlier(seg *spool.Segment, err error) {
	var e *s3put.Error
	if !errors.As(err, &e) || !e.DeniesPut() || !s.isEarlier(seg) || strings.Contains(e.Message, "kms:") {
		return
	}
	put := s.cfg.policyFacts().AllowPut(s.folderOf(seg))
	e.Err = fmt.Errorf("%w (the object is of an earlier KeyFormat: until it is delivered, whoever writes needs %s too)", e.Err, put)
}
