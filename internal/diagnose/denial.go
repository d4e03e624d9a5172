package diagnose

import (
	"regexp"
	"strings"
)

// PolicyType is a kind of policy that can refuse a request.
type PolicyType string

// Kinds of policies, as AWS names them.
const (
	IdentityPolicy      PolicyType = "identity-based policy"
	ResourcePolicy      PolicyType = "resource-based policy"
	TrustPolicy         PolicyType = "role trust policy"
	PermissionsBoundary PolicyType = "permissions boundary"
	SessionPolicy       PolicyType = "session policy"
	ServiceControl      PolicyType = "service control policy"
	ResourceControl     PolicyType = "resource control policy"
	EndpointPolicy      PolicyType = "VPC endpoint policy"
	PublicAccessBlock   PolicyType = "block public access setting"
	BlockedEncryption   PolicyType = "blocked encryption type"
)

// Denial holds the parts of AWS's message for a denied request. A field is empty if
// the message does not have that part.
type Denial struct {
	Principal string     // ARN of the identity that was refused
	Action    string     // such as "s3:PutObject"
	Resource  string     // ARN
	Reason    PolicyType // the kind of policy that refused
	Explicit  bool       // a Deny statement refused; else an Allow statement is missing
	Via       PolicyType // the kind of policy through which Reason applies
	PolicyARN string     // the very policy
}

// These patterns match the messages that AWS documents in
// https://docs.aws.amazon.com/IAM/latest/UserGuide/troubleshoot_access-denied.html and
// https://docs.aws.amazon.com/AmazonS3/latest/userguide/troubleshoot-403-errors.html.
var (
	denialPrincipal = regexp.MustCompile(`(?i)\buser: "?(arn:[!-~]+?|[!-~]+?)"? is not authorized`)
	denialAction    = regexp.MustCompile(`(?i)\bperform:? "?([a-z0-9-]+:[A-Za-z0-9]+)`)
	denialResource  = regexp.MustCompile(`(?i)\bon (?:the )?resource:? (?:"([^"]*)"|([!-~]*[^\s,.;]))`)
	denialImplicit  = regexp.MustCompile(`(?i)\bbecause (?:no|neither) ([a-z -]{1,60}?) (?:allows?|grants?)\b`)
	denialExplicit  = regexp.MustCompile(`(?i)\bexplicit deny in (?:an?|the|any) ([a-z -]{1,60}?(?:policy|policies|boundary|boundaries))\b`)
	denialVia       = regexp.MustCompile(`(?i)\btransitively through an? ([a-z -]{1,60}?(?:policy|boundary))\b`)
	denialPolicyARN = regexp.MustCompile(`arn:aws[a-z-]*:(?:iam|organizations|sts|s3|kms|ec2)[!-~]*[0-9A-Za-z*]`)
	denialBlocked   = regexp.MustCompile(`\bblocked by the (Block[A-Za-z]+|[A-Za-z]*Public[A-Za-z]+) block public access setting`)
	denialEncrypted = regexp.MustCompile(`(?i)\bblocked upload requests that specify\b`)
)

// ParseDenial parses the message of a denial by S3, STS or KMS.
func ParseDenial(text string) Denial {
	text = strings.Join(strings.Fields(bounded(text, 4000)), " ")
	d := Denial{
		Principal: clean(group(denialPrincipal, text)),
		Action:    clean(group(denialAction, text)),
		Resource:  clean(group(denialResource, text)),
		Via:       policyType(group(denialVia, text)),
	}
	rest := ""
	if found := denialExplicit.FindStringSubmatchIndex(text); found != nil {
		d.Reason, d.Explicit, rest = policyType(text[found[2]:found[3]]), true, text[found[1]:]
	} else if found := denialImplicit.FindStringSubmatchIndex(text); found != nil {
		d.Reason, rest = policyType(text[found[2]:found[3]]), text[found[1]:]
	}
	d.PolicyARN = clean(denialPolicyARN.FindString(rest))
	switch {
	case d.Reason != "":
	case strings.Contains(text, "explicit deny"):
		d.Explicit = true
	case denialBlocked.MatchString(text):
		d.Reason, d.Explicit = PublicAccessBlock, true
	case denialEncrypted.MatchString(text):
		d.Reason, d.Explicit = BlockedEncryption, true
	}
	return d
}

// policyType returns the kind of policy that AWS's words name, or "".
func policyType(words string) PolicyType {
	words = strings.ToLower(words)
	for _, t := range []struct {
		word string
		PolicyType
	}{
		{"trust", TrustPolicy},
		{"boundar", PermissionsBoundary},
		{"session", SessionPolicy}, // AWS also writes "sessions policy"
		{"service control", ServiceControl},
		{"resource control", ResourceControl},
		{"endpoint", EndpointPolicy},
		{"identity", IdentityPolicy},
		{"resource", ResourcePolicy},
		{"bucket policy", ResourcePolicy},
		{"key policy", ResourcePolicy},
	} {
		if strings.Contains(words, t.word) {
			return t.PolicyType
		}
	}
	return ""
}

// group returns the first non-empty group of the pattern's match in text, or "".
func group(pattern *regexp.Regexp, text string) string {
	found := pattern.FindStringSubmatch(text)
	for _, g := range found[min(1, len(found)):] {
		if g != "" {
			return g
		}
	}
	return ""
}
