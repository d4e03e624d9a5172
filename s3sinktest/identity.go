package s3sinktest

import (
	"cmp"
	"crypto/rand"
	"slices"
	"strings"
	"time"
)

// A User signs with keys that do not expire and may do everything in S3.
type User struct {
	// ARN is who the user is, such as arn:aws:iam::111122223333:user/app. The
	// default is a user of [AccountID] with the name of the access key.
	ARN string

	AccessKeyID     string
	SecretAccessKey string
}

// A Role can be assumed for a while, with AssumeRole.
type Role struct {
	ARN string // such as arn:aws:iam::111122223333:role/sink

	// TrustedPrincipals are the ARNs of the users, roles and sessions that may
	// assume the role; trusting a role trusts all its sessions. "*" trusts
	// everybody who can sign. Empty trusts nobody.
	TrustedPrincipals []string

	// ExternalID has to be sent by whoever assumes the role. Empty means that
	// it is not asked for, and that any is accepted.
	ExternalID string

	// MaxSession is the longest session. Defaults to one hour.
	MaxSession time.Duration

	// Actions are what the role's sessions may do in S3, by their full names.
	// A PUT with x-amz-tagging needs s3:PutObjectTagging as well. Nil means
	// s3:PutObject, s3:GetObject and s3:ListBucket; an empty slice nothing.
	Actions []string
}

// AddUser adds a user, or changes the one with the same access key ID.
func (s *Server) AddUser(user User) {
	arn := cmp.Or(user.ARN, "arn:aws:iam::"+AccountID+":user/"+user.AccessKeyID)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.keys[user.AccessKeyID] = credential{
		principal: principal{arn: arn, id: newID("AIDA")},
		secret:    user.SecretAccessKey,
	}
}

// AddRole adds a role, or changes the one with the same ARN. Sessions that
// exist go on to their end, with the new Actions.
func (s *Server) AddRole(role Role) {
	role.TrustedPrincipals = slices.Clone(role.TrustedPrincipals)
	role.MaxSession = cmp.Or(role.MaxSession, time.Hour)
	if role.Actions == nil {
		role.Actions = []string{actionPut, actionGet, actionList}
	}
	role.Actions = slices.Clone(role.Actions)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.roles[role.ARN] = role
}

// principal is who sends a request; its zero value is anonymous.
type principal struct {
	arn  string
	id   string // what GetCallerIdentity calls UserId
	role string // ARN of the role, when this is one of its sessions
}

// credential is a key that requests can be signed with.
type credential struct {
	principal
	secret  string
	token   string    // of a session; a user has none
	expires time.Time // zero: never
}

func (c credential) expired() bool {
	return !c.expires.IsZero() && !time.Now().Before(c.expires)
}

func (s *Server) credential(accessKeyID string) (credential, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	cred, ok := s.keys[accessKeyID]
	return cred, ok
}

// The S3 actions that the server asks for.
const (
	actionPut  = "s3:PutObject"
	actionGet  = "s3:GetObject"
	actionList = "s3:ListBucket"
	actionTag  = "s3:PutObjectTagging"
)

// may says whether the caller of an S3 operation is allowed the action.
func (s *Server) may(who principal, action string) bool {
	switch {
	case who.arn == "":
		return false
	case who.role == "":
		return true
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Contains(s.roles[who.role].Actions, action)
}

// trusts says whether the role may be assumed by the caller.
func (r Role) trusts(who principal, externalID string) bool {
	if r.ExternalID != "" && r.ExternalID != externalID {
		return false
	}
	return slices.ContainsFunc(r.TrustedPrincipals, func(arn string) bool {
		return arn == "*" || arn == who.arn || who.role != "" && arn == who.role
	})
}

// newSession makes keys for a session of the role.
func (s *Server) newSession(role Role, name string, d time.Duration) (accessKeyID string, cred credential) {
	parts := strings.SplitN(role.ARN, ":", 6) // arn:partition:iam::account:role/path/name
	roleName := parts[5][strings.LastIndexByte(parts[5], '/')+1:]
	accessKeyID = newID("ASIA")
	cred = credential{
		principal: principal{
			arn:  "arn:" + parts[1] + ":sts::" + parts[4] + ":assumed-role/" + roleName + "/" + name,
			id:   newID("AROA") + ":" + name,
			role: role.ARN,
		},
		secret:  rand.Text() + rand.Text(),
		token:   "FwoGZXIvYXdzE" + rand.Text() + rand.Text() + rand.Text() + rand.Text() + "/+==",
		expires: time.Now().Add(d),
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.keys[accessKeyID] = cred
	return accessKeyID, cred
}

// newID makes an identifier like AWS's: four letters that say what it is of,
// then sixteen of base 32.
func newID(prefix string) string { return prefix + rand.Text()[:16] }
