"""The tiny vision-language model of the sample shop: how it is made, trained and measured."""
