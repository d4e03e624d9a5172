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

// Advice says what is wrong and what to change.
type Advice struct {
	Kind       Kind
	Says       string // what is wrong, in sentences
	Fix        string // what to change, in sentences
	Statements []Placed
}

// Placed is a statement and its place.
type Placed struct {
	Place     string // such as "In the bucket policy"
	Statement policy.Statement
}

// String returns the advice in one line. The fix is last, behind "Fix:", with each
// statement as JSON.
func (a Advice) String() string {
	var b strings.Builder
	b.WriteString(a.Says + " Fix: " + a.Fix)
	for _, p := range a.Statements {
		b.WriteString(" " + p.Place + ": " + p.Statement.String())
	}
	return b.String()
}

// placed returns s with its place, for a principal ("": the policy belongs to an
// identity and has none).
func placed(s policy.Statement, place, principal string) Placed {
	s.Effect = "Allow"
	if principal != "" {
		s.Principal = map[string]string{"AWS": principal}
	}
	return Placed{place, s}
}

// Lines lays an advice out for a terminal: text is wrapped at so many columns,
// the fix begins a line, and each statement is JSON of its own lines, which can be
// copied as they are.
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

// wrap writes the words of text in lines.
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

// Wrap returns text in lines of at most so many columns, if its words allow it.
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

// IAMPrincipal returns the ARN by which a policy names an identity: the role of a
// session, and any other identity itself. The path of a role is not part of its
// sessions' ARNs.
func IAMPrincipal(arn string) string {
	if m := assumedRole.FindStringSubmatch(arn); m != nil {
		return "arn:" + m[1] + ":iam::" + m[2] + ":role/" + m[3]
	}
	return arn
}

// trusted returns the principal of a trust policy for an identity, and the
// condition that narrows it. IAM Identity Center puts its roles below a path that
// their sessions do not tell, so a pattern names them.
func trusted(arn string) (principal string, condition map[string]map[string][]string) {
	m := assumedRole.FindStringSubmatch(arn)
	if m == nil || !ssoRole.MatchString(m[3]) {
		return IAMPrincipal(arn), map[string]map[string][]string{}
	}
	return "arn:" + m[1] + ":iam::" + m[2] + ":root", map[string]map[string][]string{
		"ArnLike": {"aws:PrincipalArn": {"arn:" + m[1] + ":iam::" + m[2] + ":role/aws-reserved/sso.amazonaws.com/*" + m[3]}},
	}
}

// redactSecret hides what has the length of an AWS secret, in case that the two
// halves of an access key were swapped.
func redactSecret(text string) string { return awsSecret.ReplaceAllString(text, "REDACTED") }
