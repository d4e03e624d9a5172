package s3sinktest

import (
	"cmp"
	"crypto/rand"
	"encoding/json"
	"slices"
	"strings"
	"time"
)

// A User signs with keys that do not expire.
type User struct {
	// ARN is who the user is, such as arn:aws:iam::111122223333:user/app. The
	// default is a user of [AccountID] with the name of the access key.
	ARN string

	AccessKeyID     string
	SecretAccessKey string

	// Policy is the user's IAM policy, a JSON document. Empty means that the
	// user may do everything, as with AdministratorAccess.
	Policy string
}

// A Role can be assumed for a while, with AssumeRole.
type Role struct {
	ARN string // such as arn:aws:iam::111122223333:role/sink

	// TrustedPrincipals are the ARNs of the users, roles and sessions that may
	// assume the role; trusting a role trusts all its sessions. "*" trusts
	// every principal that can sign. An account, by its number or the ARN of its
	// root, leaves it to that account's policies. Empty trusts no principal.
	//
	// A caller of another account than the role's needs sts:AssumeRole in its
	// own policy too, and in every account a session policy has to allow it.
	TrustedPrincipals []string

	// ExternalID has to be sent by the caller that assumes the role. Empty means
	// that none is required, and that any is accepted.
	ExternalID string

	// MaxSession is the longest session. Defaults to one hour.
	MaxSession time.Duration

	// SessionLasts is how long sessions last whatever they asked for, and what
	// the answer to AssumeRole says. STS itself has none shorter than 15
	// minutes. Zero means as long as asked for.
	SessionLasts time.Duration

	// Policy is the role's IAM policy, a JSON document, and Actions are a short
	// form of one: they are allowed on every resource, by their full names.
	// Either adds to the other. A role with neither may do everything, as with
	// AdministratorAccess; one with an empty slice of Actions may do nothing.
	Policy  string
	Actions []string
}

// role is a Role that has been read.
type role struct {
	Role
	policy *policy // nil: everything is allowed
}

// AddUser adds a user, or changes the user with the same access key ID. It
// panics when it does not understand the policy.
func (s *Server) AddUser(user User) {
	arn := cmp.Or(user.ARN, "arn:aws:iam::"+AccountID+":user/"+user.AccessKeyID)
	cred := credential{
		principal: principal{arn: arn, id: newID("AIDA"), policy: mustPolicy(arn, user.Policy, parsePolicy)},
		secret:    user.SecretAccessKey,
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.keys[user.AccessKeyID] = cred
}

// AddRole adds a role, or changes the role with the same ARN. Sessions that
// exist stay valid to their end, with the new policy. It panics when it does not
// understand the policy.
func (s *Server) AddRole(r Role) {
	r.TrustedPrincipals = slices.Clone(r.TrustedPrincipals)
	r.MaxSession = cmp.Or(r.MaxSession, time.Hour)
	p := mustPolicy(r.ARN, r.Policy, parsePolicy)
	if r.Actions != nil {
		p = p.with(r.ARN, r.Actions)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.roles[r.ARN] = role{r, p}
}

// with is the policy that also allows the actions.
func (p *policy) with(whose string, actions []string) *policy {
	sum := new(policy)
	if p != nil {
		sum.statements = p.statements
	}
	if len(actions) == 0 {
		return sum
	}
	text, _ := json.Marshal(map[string]any{ // strings always marshal
		"Version":   policyVersion,
		"Statement": map[string]any{"Effect": "Allow", "Action": actions, "Resource": "*"},
	})
	sum.statements = append(sum.statements, mustPolicy(whose, string(text), parsePolicy).statements...)
	return sum
}

// principal is who sends a request; its zero value is anonymous.
type principal struct {
	arn  string
	id   string // what GetCallerIdentity calls UserId
	role string // ARN of the role, when this is one of its sessions

	policy  *policy // of a user; nil allows everything. A session has its role's.
	session *policy // what AssumeRole was sent; nil allows everything
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

// The actions that the server asks for.
const (
	actionPut     = "s3:PutObject"
	actionGet     = "s3:GetObject"
	actionList    = "s3:ListBucket"
	actionTag     = "s3:PutObjectTagging"
	actionACL     = "s3:PutObjectAcl"
	actionDataKey = "kms:GenerateDataKey"
	actionDecrypt = "kms:Decrypt"
	actionAssume  = "sts:AssumeRole"
)

// newSession makes keys for a session of the role.
func (s *Server) newSession(role role, name string, d time.Duration, session *policy) (accessKeyID string, cred credential) {
	parts := strings.SplitN(role.ARN, ":", 6) // arn:partition:iam::account:role/path/name
	roleName := parts[5][strings.LastIndexByte(parts[5], '/')+1:]
	accessKeyID = newID("ASIA")
	cred = credential{
		principal: principal{
			arn:     "arn:" + parts[1] + ":sts::" + parts[4] + ":assumed-role/" + roleName + "/" + name,
			id:      newID("AROA") + ":" + name,
			role:    role.ARN,
			session: session,
		},
		secret:  rand.Text() + rand.Text(),
		token:   "FwoGZXIvYXdzE" + rand.Text() + rand.Text() + rand.Text() + rand.Text() + "/+==",
		expires: time.Now().Add(cmp.Or(role.SessionLasts, d)),
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.keys[accessKeyID] = cred
	return accessKeyID, cred
}

// newID makes an identifier like AWS's: four letters for the kind of resource,
// then sixteen of base 32.
func newID(prefix string) string { return prefix + rand.Text()[:16] }
