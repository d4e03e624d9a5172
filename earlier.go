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

// The run that accepted the events decides the content and the key of an object.
// The Config of the run that uploads it decides the request headers and the
// credentials. If the two runs have different KeyFormats, the credentials must be
// allowed to write to the key folders of both.

// hasOtherKeyFormat reports whether the key of a segment is outside the folder of
// Config.KeyFormat.
func (s *Sink) hasOtherKeyFormat(seg *spool.Segment) bool {
	return !strings.HasPrefix(seg.Key, s.cfg.folder())
}

// folderOf returns the folder of all keys of the KeyFormat that made the key of a
// segment. That KeyFormat is no longer known. The folder is the one above the
// source's folder, or the folder of the key itself if no folder names the source.
func (s *Sink) folderOf(seg *spool.Segment) string {
	key := seg.Key[len(s.prefix):]
	folder := "/" + key[:strings.LastIndexByte(key, '/')+1]
	source := escapeSource(seg.Source) + "/"
	if at := max(strings.LastIndex(folder, "/"+source), strings.LastIndex(folder, "="+source)); at >= 0 {
		folder = folder[:strings.LastIndexByte(folder[:at+1], '/')+1]
	}
	return s.prefix + folder[1:]
}

// scope holds the session policy of the writing role.
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

// widenSessions extends the session policy to the key folders of other KeyFormats
// that previous runs have used, before segments with such keys are uploaded. The
// policy stays extended until the sink is closed.
func (s *Sink) widenSessions(left *spool.Recovered) {
	folders := s.otherFolders
	addFolder := func(seg *spool.Segment) {
		if s.hasOtherKeyFormat(seg) {
			folders[s.folderOf(seg)] = struct{}{}
		}
	}
	for _, seg := range left.Sealed {
		addFolder(seg)
	}
	for _, t := range left.Unfinished {
		if t.Segment != nil {
			addFolder(t.Segment)
		}
	}
	if len(folders) == 0 {
		return
	}
	s.scope.set(s.cfg.policyWith(slices.Collect(maps.Keys(folders))))
	s.client.Renew() // Validate may have created a session with the old policy
}

// maxWidenedPolicy is the greatest length of an extended session policy, in
// characters. It is below maxSessionPolicy, because STS also limits the packed
// size, which cannot be computed here.
const maxWidenedPolicy = maxSessionPolicy / 2

// policyWith returns a session policy that also allows keys in the given folders.
// If that policy is too long, parent folders replace the folders, at most up to
// the prefix. Every key begins with the prefix, and a policy for the prefix is
// not longer than the policy without extra folders.
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
		if depth == 0 || utf8.RuneCountInString(p.Compact()) <= maxWidenedPolicy {
			return p
		}
	}
}

// explainOldKeyFormat adds to a denial a fact that the Config does not show: the
// key was made with an earlier KeyFormat.
func (s *Sink) explainOldKeyFormat(seg *spool.Segment, err error) {
	var e *s3put.Error
	if !errors.As(err, &e) || !e.DeniesPut() || !s.hasOtherKeyFormat(seg) || strings.Contains(e.Message, "kms:") {
		return
	}
	put := s.cfg.policyFacts().AllowPut(s.folderOf(seg))
	e.Err = fmt.Errorf("%w (the object is of an earlier KeyFormat: until it is delivered, whoever writes needs %s too)", e.Err, put)
}
