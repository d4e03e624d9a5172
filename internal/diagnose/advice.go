package diagnose

import (
	"bytes"
	"encoding/json"
	"regexp"
	"strings"
	"unicode/utf8"

	"github.com/s3sink/s3sink/policy"
)

// Kind is a kind of advice.
type Kind string

// Kinds of advice.
const (
	ForeignPanic     Kind = "panic outside the sink"
	Certificate      Kind = "certificate"
	NoAnswer         Kind = "no answer"
	NotTheService    Kind = "not the service"
	Busy             Kind = "busy"
	Account          Kind = "account"
	Clock            Kind = "clock"
	NoCredentials    Kind = "no credentials"
	CredentialSource Kind = "credential source"
	UnknownKey       Kind = "unknown access key"
	WrongSecret      Kind = "wrong secret"
	EndedSession     Kind = "session ended"
	InvalidToken     Kind = "session token"

	ExternalIDNotRequired Kind = "external id not required"
	CallerPermissions     Kind = "permissions of the caller"
	TrustOfRole           Kind = "trust policy"
	RefusedWithoutReason  Kind = "refused without a reason"
	SessionTags           Kind = "session tags"
	RootCaller            Kind = "root user"
	SessionDuration       Kind = "session duration"
	RoleARN               Kind = "role ARN"
	SessionPolicyRefused  Kind = "session policy refused"
	RegionNotActive       Kind = "region not active"
	MFA                   Kind = "MFA"

	WriterPermissions Kind = "permissions of the writer"
	BucketPolicy      Kind = "bucket policy"
	BucketACL         Kind = "ACL"
	ObjectTags        Kind = "tags"
	OwnSessionPolicy  Kind = "session policy of the sink"
	ExplicitDeny      Kind = "explicit deny"
	GuardrailPolicy   Kind = "boundary, organization or endpoint"
	KeyPermissions    Kind = "permissions for the KMS key"
	KeyPolicy         Kind = "KMS key policy"
	KeyState          Kind = "KMS key"
	NoBucket          Kind = "no bucket"
	WrongRegion       Kind = "region"
	Setting           Kind = "setting"
	Integrity         Kind = "integrity"
	Unknown           Kind = "unknown"
)

// Advice explains a failure and the change that fixes it.
type Advice struct {
	Kind       Kind
	Says       string // the problem, in sentences
	Fix        string // the change to make, in sentences
	Statements []Placed
}

// Placed is an IAM statement and the policy that it belongs in.
type Placed struct {
	Place     string // such as "In the bucket policy"
	Statement policy.Statement
}

// String returns the advice in one line. The fix is last, after "Fix:", with each
// statement as JSON.
func (a Advice) String() string {
	var b strings.Builder
	b.WriteString(a.Says + " Fix: " + a.Fix)
	for _, p := range a.Statements {
		b.WriteString(" " + p.Place + ": " + p.Statement.String())
	}
	return b.String()
}

// placed returns s with its place and its principal. The principal is "" for a
// policy of an identity, which has none.
func placed(s policy.Statement, place, principal string) Placed {
	s.Effect = "Allow"
	if principal != "" {
		s.Principal = map[string]string{"AWS": principal}
	}
	return Placed{place, s}
}

// Lines formats advice for a terminal. Text is wrapped at the given number of
// columns, the fix begins a line, and each statement is indented JSON on its own
// lines, so that it can be copied.
func Lines(advice string, columns int) string {
	var b strings.Builder
	for advice != "" {
		at := strings.Index(advice, `{"`)
		if at < 0 {
			at = len(advice)
		}
		says, fix, ok := strings.Cut(advice[:at], "Fix: ")
		if !ok {
			wrap(&b, says, columns)
		} else {
			wrap(&b, says, columns)
			wrap(&b, "Fix: "+fix, columns)
		}
		advice = advice[at:]
		if advice == "" {
			break
		}
		var raw json.RawMessage
		d := json.NewDecoder(strings.NewReader(advice))
		if err := d.Decode(&raw); err != nil {
			wrap(&b, advice, columns) // not a statement
			break
		}
		advice = advice[d.InputOffset():]
		var statement bytes.Buffer
		if err := json.Indent(&statement, raw, "", "  "); err != nil {
			statement.Write(raw)
		}
		b.WriteString(statement.String() + "\n")
	}
	return b.String()
}

// wrap writes text, wrapped at columns.
func wrap(b *strings.Builder, text string, columns int) {
	used := 0
	for _, word := range strings.Fields(text) {
		n := utf8.RuneCountInString(word)
		switch {
		case used == 0:
		case used+1+n > columns:
			b.WriteString("\n")
			used = 0
		default:
			b.WriteString(" ")
			used++
		}
		b.WriteString(word)
		used += n
	}
	if used > 0 {
		b.WriteString("\n")
	}
}

// Wrap wraps text at the given number of columns. A longer word has a line of its
// own.
func Wrap(text string, columns int) string {
	var b strings.Builder
	wrap(&b, text, columns)
	return b.String()
}

var (
	assumedRole = regexp.MustCompile(`^arn:([a-z-]+):sts::([0-9]{12}):assumed-role/([^/]+)/.+$`)
	ssoRole     = regexp.MustCompile(`^AWSReservedSSO_`)
	awsSecret   = regexp.MustCompile(`[A-Za-z0-9/+]{40,}`)
)

// IAMPrincipal returns the ARN that policies use for an identity. For a session
// that is the ARN of its role, without the role's path: the ARN of a session does
// not contain it. For any other identity it is arn.
func IAMPrincipal(arn string) string {
	if m := assumedRole.FindStringSubmatch(arn); m != nil {
		return "arn:" + m[1] + ":iam::" + m[2] + ":role/" + m[3]
	}
	return arn
}

// trusted returns the principal of a trust policy for an identity, and the
// condition that narrows it. The roles of IAM Identity Center have a path that is
// not part of their sessions' ARNs, so the condition matches them by a pattern.
func trusted(arn string) (principal string, condition map[string]map[string][]string) {
	m := assumedRole.FindStringSubmatch(arn)
	if m == nil || !ssoRole.MatchString(m[3]) {
		return IAMPrincipal(arn), map[string]map[string][]string{}
	}
	return "arn:" + m[1] + ":iam::" + m[2] + ":root", map[string]map[string][]string{
		"ArnLike": {"aws:PrincipalArn": {"arn:" + m[1] + ":iam::" + m[2] + ":role/aws-reserved/sso.amazonaws.com/*" + m[3]}},
	}
}

// redactSecret redacts strings that have the length of an AWS secret: the two
// halves of an access key may have been swapped.
func redactSecret(text string) string { return awsSecret.ReplaceAllString(text, "REDACTED") }
