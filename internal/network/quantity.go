package network

import (
	"fmt"
	"math/big"
	"strings"
)

// The range that Kubernetes allows for a bandwidth, in bits per second.
const (
	minRate = 1_000
	maxRate = 1_000_000_000_000_000
)

// scales are the suffixes of a Kubernetes quantity that can make a rate
// (https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/quantity/).
func scales() map[string]int64 {
	return map[string]int64{
		"k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "P": 1e15,
		"Ki": 1 << 10, "Mi": 1 << 20, "Gi": 1 << 30, "Ti": 1 << 40,
	}
}

// parseRate reads a Kubernetes quantity as bits per second, rounded up.
func parseRate(text string) (uint64, error) {
	digits := strings.TrimRight(text, "kMGTPi")
	number, ok := parseDecimal(digits)
	if !ok {
		return 0, fmt.Errorf("%q is no quantity such as 10M", text)
	}
	if suffix := text[len(digits):]; suffix != "" {
		scale, ok := scales()[suffix]
		if !ok {
			return 0, fmt.Errorf("%q is no quantity such as 10M", text)
		}
		number.Mul(number, new(big.Rat).SetInt64(scale))
	}
	if number.Cmp(big.NewRat(minRate, 1)) < 0 || number.Cmp(big.NewRat(maxRate, 1)) > 0 {
		return 0, fmt.Errorf("%q is not between 1k and 1P", text)
	}
	up := new(big.Int).Add(number.Num(), new(big.Int).Sub(number.Denom(), big.NewInt(1)))
	return up.Div(up, number.Denom()).Uint64(), nil
}

// parseDecimal reads "12", "1.5" or "1e6", with at most 32 bytes, so that no
// exponent can make a number that fills the memory.
func parseDecimal(s string) (*big.Rat, bool) {
	mantissa, exponent, _ := strings.Cut(strings.ToLower(s), "e")
	if s == "" || len(s) > 32 || len(strings.TrimLeft(exponent, "+-0")) > 2 || strings.Trim(mantissa, "0123456789.") != "" {
		return nil, false
	}
	return new(big.Rat).SetString(s)
}
